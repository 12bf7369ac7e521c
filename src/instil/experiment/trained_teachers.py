"""Teachers that need not be trained: an earlier run did it, or somebody else."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from instil import catalogue
from instil.cards import has_tag
from instil.core import Net
from instil.data.aligned import read_by_teacher
from instil.engine import rank
from instil.engine.processes import broadcast_object
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.sample_digest import sample_digest
from instil.experiment.schemes import build_teacher_scheme
from instil.experiment.teachers import teacher_training_data
from instil.export.student import load_student
from instil.files.checksums import DamagedFileError
from instil.networks.factory import code_of
from instil.recipe import fingerprint, label_objective_configs
from instil.recipe.sections import ModelConfig, TeacherConfig

log = logging.getLogger("instil")


def load_if_trained(stage: Experiment, spec: TeacherConfig, number: int) -> Net | None:
    """A teacher that need not be trained: it has weights, is trained as built, or an earlier run trained it; else None."""
    given = spec.ready
    if spec.earlier:
        return None
    net = build_final_architecture(stage, spec, number)
    if given:
        return net
    return None if read_cached(net, cache_path(stage, spec, number)) is None else net


class TrainedTeacherRecord(BaseModel):
    """What is kept with the weights of a trained teacher: seconds and records of its training."""

    model_config = ConfigDict(extra="forbid")

    seconds: float
    records: list[dict[str, Any]]


def read_cached(net: Net, path: Path) -> TrainedTeacherRecord | None:
    """Fill a net with the weights of a teacher that an earlier run trained.

    Args:
        net: the untrained teacher.
        path: of ``cache_path``.

    Returns:
        What is known of its training, or None if the file is missing or damaged, which is logged:
        the teacher is trained again then. All ranks get the same answer.
    """
    cached = broadcast_object(_read_cached(net, path) if rank() == 0 else None)
    if cached is not None and rank() != 0:
        load_student(net, path)
    return cached  # type: ignore[no-any-return]


def _read_cached(net: Net, path: Path) -> TrainedTeacherRecord | None:
    if not path.exists():
        return None
    try:
        return TrainedTeacherRecord.model_validate(load_student(net, path))
    except (DamagedFileError, ValidationError) as error:
        reason = "its description is not that of this version"
        reason = str(error) if isinstance(error, DamagedFileError) else f"{path}: {reason}."
        log.warning("%s The cached teacher is trained again now.", reason)
    return None


def build_teacher(stage: Experiment, spec: TeacherConfig, number: int) -> Net:
    """A teacher as it is built, with the weights that the recipe gives it."""
    torch.manual_seed(number)
    return build_network(spec, teacher_training_data(stage, spec, number), "teacher")


def build_final_architecture(stage: Experiment, spec: TeacherConfig, index: int) -> Net:
    """Build a network of the architecture that the training of a teacher returns.

    It is the teacher as it is built, unless its scheme exports another architecture.

    Args:
        stage: whose teacher it is.
        spec: the teacher.
        index: index of the teacher among those of the stage.
    """
    net = build_teacher(stage, spec, index)
    if spec.ready or not has_tag(catalogue.find("scheme", spec.scheme.type), "new_architecture"):
        return net
    own = teacher_training_data(stage, spec, index).for_network(spec)
    scheme = build_teacher_scheme(own, net, spec)
    batch = next(iter(own.loader(own.splits.train)))
    scheme.prepare(read_by_teacher(batch) if spec.tokenizer else batch)
    return scheme.export()


def cache_path(stage: Experiment, spec: TeacherConfig, number: int) -> Path:
    """Where a trained teacher is kept: named by the hash of all that made it, in ``$INSTIL_CACHE`` or ``~/.cache/instil``."""
    stage = teacher_training_data(stage, spec, number)
    recipe = stage.recipe
    made_of: list[Any] = [
        recipe.task,
        recipe.data.model_dump(
            exclude={
                "images": True,
                "num_labeled": True,
                "sampler": True,
                "workers": True,
                "augment": {"mixup", "partner"},
            }
        ),
        data_fingerprint(stage),
        spec.model_dump(
            exclude={"taps", "precompute", "data", "num_replicas"}, exclude_defaults=True
        ),
        None
        if spec.weights is None
        else hashlib.sha256(recipe.locate(spec.weights).read_bytes()).hexdigest(),
        code_of(spec.model, Path(recipe.folder)),
        {
            name: goal.model_dump(mode="json")
            for name, goal in label_objective_configs(recipe, *stage.task.label_objectives).items()
        },
        recipe.teacher_train or recipe.train,
        number,
    ]
    cache = Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
    return cache / "teachers" / f"{fingerprint(*made_of)}.safetensors"


def starts_from_teacher(spec: ModelConfig, stage: Experiment) -> bool:
    """Whether a student is made of its teacher, which no earlier stage made."""
    teachers = stage.recipe.teachers
    return spec.model == "teacher" and bool(teachers) and not teachers[0].earlier


def checkpoint_shares(
    stages: Sequence[Experiment], stage: Experiment, spec: TeacherConfig, number: int
) -> list[float]:
    """The parts of a teacher's training after which a stage of the recipe wants it.

    Args:
        stages: of the recipe.
        stage: whose teacher it is.
        spec: the teacher.
        number: its index among the teachers of the stage.

    Returns:
        Shares of the training in (0, 1], in order.
    """
    whole = cache_path(stage, spec.model_copy(update={"checkpoint_at": 1.0}), number)
    moments = {spec.checkpoint_at}
    for other in stages:
        for index, teacher in enumerate(other.recipe.teachers):
            if teacher.earlier or teacher.ready:
                continue
            if cache_path(other, teacher.model_copy(update={"checkpoint_at": 1.0}), index) == whole:
                moments.add(teacher.checkpoint_at)
    return sorted(moments)


def data_fingerprint(stage: Experiment) -> str:
    """Fingerprint of a experiment's training samples: two folders may hold different data under one name."""
    return sample_digest(stage.splits.train)
