"""Teachers that need no training: they have weights, or an earlier run trained them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from instil import catalogue
from instil.cards import has_tag
from instil.core import Net
from instil.data.aligned import read_by_teacher
from instil.engine import rank
from instil.engine.processes import broadcast_object
from instil.engine.state import set_seed
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.outputs_version import OUTPUTS_VERSION
from instil.experiment.recipe_metrics import perturbations
from instil.experiment.sample_digest import sample_digest
from instil.experiment.schemes import build_teacher_scheme
from instil.experiment.teachers import teacher_training_data
from instil.export.student import load_student
from instil.files.cache import cache_folder
from instil.files.checksums import DamagedFileError
from instil.networks.factory import code_of
from instil.recipe import fingerprint, label_objective_configs
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig

log = logging.getLogger("instil")

DATA_OF_STUDENT: Mapping[str, bool | set[str]] = {
    # The classes are part of the fingerprint of the samples.
    "class_subset": True,
    "test_classes": True,
    "test_stages": True,
    "exemplars": True,
    "surrogate": True,
    "num_labeled": True,
    "sampler": True,
    "workers": True,
    "augment": {"mixup", "partner"},
}
"""Options of the section ``data`` on which no teacher depends."""

USE_OF_TEACHER = {"taps", "precompute", "data", "num_replicas", "shared_classes"}
"""Options of a teacher on which its weights do not depend."""


class TrainedTeacherRecord(BaseModel):
    """Data stored with the weights of a trained teacher: seconds and records of its training."""

    model_config = ConfigDict(extra="forbid")

    seconds: float
    records: list[dict[str, Any]]


def load_if_trained(
    experiment: Experiment, teacher_config: TeacherConfig, index: int
) -> Net | None:
    """Return a teacher with its final weights if it needs no training, else None.

    A teacher needs no training if it has weights, if it is trained as built, or if an earlier run
    trained it.

    Args:
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage.
    """
    if teacher_config.earlier:
        return None
    # A file in the cache has the weights after training, in the final architecture.
    net = build_final_architecture(experiment, teacher_config, index)
    if teacher_config.ready:
        return net
    record = read_cached(net, cache_path(experiment, teacher_config, index))
    return None if record is None else net


def read_cached(net: Net, path: Path) -> TrainedTeacherRecord | None:
    """Load the weights of a teacher that an earlier run trained.

    Args:
        net: the untrained teacher.
        path: file of ``cache_path``.

    Returns:
        The record of its training, or None if the file is missing or damaged, which is logged: the
        teacher is trained again then. The result is the same on all ranks.
    """
    # The first rank decides for all: the file may appear while other ranks look for it.
    record = broadcast_object(_read_cached(net, path) if rank() == 0 else None)
    if record is not None and rank() != 0:
        load_student(net, path)
    return record  # type: ignore[no-any-return]


def build_teacher(experiment: Experiment, teacher_config: TeacherConfig, index: int) -> Net:
    """Build a teacher with the weights of the recipe, or with random ones.

    Args:
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage, which is the seed of random weights.
    """
    # Independent of the seeds of the recipe: all of them share one cached teacher.
    set_seed(index)
    data = teacher_training_data(experiment, teacher_config, index)
    return build_network(teacher_config, data, "teacher")


def build_final_architecture(
    experiment: Experiment, teacher_config: TeacherConfig, index: int
) -> Net:
    """Build a network of the architecture that the training of a teacher returns.

    It is the teacher as it is built, unless its scheme exports another architecture.

    Args:
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage.
    """
    net = build_teacher(experiment, teacher_config, index)
    scheme_class = catalogue.find("scheme", teacher_config.scheme.type)
    if teacher_config.ready or not has_tag(scheme_class, "new_architecture"):
        return net
    data = teacher_training_data(experiment, teacher_config, index).for_network(teacher_config)
    scheme = build_teacher_scheme(data, net, teacher_config)
    batch = next(iter(data.loader(data.splits.train)))
    scheme.prepare(read_by_teacher(batch) if teacher_config.tokenizer else batch)
    return scheme.export()


def cache_path(experiment: Experiment, teacher_config: TeacherConfig, index: int) -> Path:
    """Return the file of a trained teacher, which is named after all that its weights depend on.

    It is in ``$INSTIL_CACHE`` or ``~/.cache/instil``.

    Args:
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage.
    """
    data = teacher_training_data(experiment, teacher_config, index)
    recipe = data.recipe
    objectives = label_objective_configs(recipe, *data.task.label_objectives)
    dependencies: list[Any] = [
        recipe.task,
        recipe.data.model_dump(exclude=DATA_OF_STUDENT),
        data_fingerprint(data),
        teacher_config.model_dump(exclude=USE_OF_TEACHER, exclude_defaults=True),
        _weights_file_hash(recipe, teacher_config),
        code_of(teacher_config.model, Path(recipe.folder), teacher_config.options),
        {name: objective.model_dump(mode="json") for name, objective in objectives.items()},
        recipe.teacher_train or recipe.train,
        index,
        *_selection(data),
        OUTPUTS_VERSION,
    ]
    return cached_file(fingerprint(*dependencies))


def cached_file(teacher_fingerprint: str) -> Path:
    """Return the file of the trained teacher with this fingerprint."""
    return cache_folder() / "teachers" / f"{teacher_fingerprint}.safetensors"


def starts_from_teacher(student_config: ModelConfig, experiment: Experiment) -> bool:
    """Whether a student is a copy of a teacher that is not the output of an earlier stage."""
    teachers = experiment.recipe.teachers
    return student_config.model == "teacher" and bool(teachers) and not teachers[0].earlier


def checkpoint_shares(
    stages: Sequence[Experiment], experiment: Experiment, teacher_config: TeacherConfig, index: int
) -> list[float]:
    """Return the shares of a teacher's training after which a stage of the recipe uses it.

    Args:
        stages: experiments of all stages of the recipe.
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage.

    Returns:
        Shares of the training in (0, 1], in ascending order.
    """
    path = _full_training_path(experiment, teacher_config, index)
    shares = {teacher_config.checkpoint_at}
    for stage in stages:
        for other_index, other in enumerate(stage.recipe.teachers):
            if other.earlier or other.ready:
                continue
            if _full_training_path(stage, other, other_index) == path:
                shares.add(other.checkpoint_at)
    return sorted(shares)


def data_fingerprint(experiment: Experiment) -> str:
    """Return the digest of the training samples: equal names do not mean equal data."""
    return sample_digest(experiment.splits.train)


def _read_cached(net: Net, path: Path) -> TrainedTeacherRecord | None:
    if not path.exists():
        return None
    try:
        return TrainedTeacherRecord.model_validate(load_student(net, path))
    except DamagedFileError as error:
        reason = str(error)
    except ValidationError:
        reason = f"{path}: its description is not that of this version."
    log.warning("%s The cached teacher is trained again now.", reason)
    return None


def _full_training_path(experiment: Experiment, config: TeacherConfig, index: int) -> Path:
    """File of the teacher after its whole training; the same for all ``checkpoint_at``."""
    return cache_path(experiment, config.model_copy(update={"checkpoint_at": 1.0}), index)


def _selection(data: Experiment) -> list[Any]:
    """Dependencies of the choice of the weights or the length; empty for the last weights.

    Args:
        data: experiment with the data of the teacher.
    """
    recipe = data.recipe
    train = recipe.teacher_train or recipe.train
    if train.keep == "last" and train.early_stopping is None:
        return []
    headline = data.task.headline
    # The scheme of the student may attack the validation samples.
    attack = recipe.scheme if headline in perturbations(recipe) else None
    return [headline, recipe.metrics.get(headline), attack, sample_digest(data.splits.validation)]


def _weights_file_hash(recipe: Recipe, config: TeacherConfig) -> str | None:
    if config.weights is None:
        return None
    return hashlib.sha256(recipe.locate(config.weights).read_bytes()).hexdigest()
