"""Training data of the teachers of a stage, and their combination into one teacher."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil import catalogue
from instil.capabilities import Precomputes
from instil.cards import has_tag, suggestion
from instil.core import Net, Teacher
from instil.data.labels import few_labels
from instil.data.ragged_rows import RaggedRows
from instil.data.samples import TensorData
from instil.data.splits import Splits, numbered
from instil.engine import init_distributed, world_size
from instil.experiment.experiment import Experiment
from instil.experiment.offloaded_teachers import move_teacher
from instil.experiment.sources import set_collation, shared_source
from instil.experiment.vocabularies import require_same_tokens
from instil.items import to_device
from instil.recipe import RecipeError, build_options, error_context
from instil.recipe.sections import DataConfig, TeacherConfig
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.teachers.routed import ROW_KEYS, Routed


def teacher_training_data(
    experiment: Experiment, teacher_config: TeacherConfig, index: int
) -> Experiment:
    """Return the experiment with the data that a teacher is trained on.

    These are the recipe's data or those of ``teacher.data``, or a part of them if members of the
    ensemble must not share training samples.

    Args:
        experiment: experiment of the teacher's stage.
        teacher_config: section of the teacher.
        index: index of the teacher in the stage.

    Raises:
        RecipeError: for data of another kind than the recipe's, or with too few samples for the
            members.
    """
    own = _with_own_labels(_with_own_source(experiment, teacher_config), teacher_config)
    if not has_tag(combiner_class(experiment), "disjoint_data") or teacher_config.ready:
        return own
    sharing = [
        other_index
        for other_index, other in enumerate(experiment.recipe.teachers)
        if other.data == teacher_config.data and not (other.ready or other.earlier)
    ]
    train = own.splits.train
    # The order is the same for all members, so that their parts do not overlap.
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    if len(sharing) > len(order):
        raise RecipeError(
            f"teacher: {len(sharing)} members share {len(order)} samples. Expected a sample for "
            "each member. Use fewer members"
        )
    part = torch.tensor_split(order, len(sharing))[sharing.index(index)]
    return dataclasses.replace(
        own, splits=dataclasses.replace(own.splits, train=numbered(train, part))
    )


def teacher_class_names(experiment: Experiment, index: int) -> Sequence[str]:
    """Return the class names of a teacher's logits.

    Args:
        experiment: experiment of the teacher's stage.
        index: index of the teacher in the stage.
    """
    teacher_config = experiment.recipe.teachers[index]
    if teacher_config.classes:
        return teacher_config.classes
    if teacher_config.earlier and experiment.stage_data is not None:
        return experiment.stage_data.earlier_classes[teacher_config.model]
    return _with_own_source(experiment, teacher_config).splits.classes


def combiner_class(experiment: Experiment) -> type[Teacher]:
    """Return the class that combines the teachers of a stage.

    Raises:
        RecipeError: if ``ensemble`` names a teacher that has no members.
    """
    if experiment.recipe.ensemble is None:
        return Ensemble
    name = experiment.recipe.ensemble.type
    teacher_class: type[Teacher] = catalogue.find("teacher", name)
    if not _has_members(teacher_class):
        names = [
            other
            for other in catalogue.names("teacher")
            if _has_members(catalogue.find("teacher", other))
        ]
        raise RecipeError(
            f"ensemble: '{name}' is one teacher. Expected a combination.{suggestion(name, names)}"
        )
    return teacher_class


def combine_teachers(experiment: Experiment, nets: Sequence[Net | Teacher]) -> Teacher | None:
    """Combine the teachers of a stage into one.

    Args:
        experiment: experiment of the stage.
        nets: the teachers, in the order of the recipe.

    Returns:
        The teacher, None for a stage without teachers.

    Raises:
        RecipeError: for options of ``ensemble`` that do not fit.
    """
    ensemble = experiment.recipe.ensemble
    teacher_class = combiner_class(experiment)
    if ensemble is None or not nets:
        return as_teacher(nets)
    options = build_options("teacher", ensemble.type, ensemble.options, "ensemble")
    if has_tag(teacher_class, "merged_classes"):
        options["member_class_names"] = [
            teacher_class_names(experiment, index) for index in range(len(nets))
        ]
        options["class_names"] = experiment.splits.classes
    with error_context("ensemble"):
        teacher = teacher_class(nets, **options)
        if isinstance(teacher, Routed):
            _check_routes(teacher, experiment)
        return teacher


def _check_routes(teacher: Routed, experiment: Experiment) -> None:
    """Check that each row in memory has a member, before a late batch fails."""
    if teacher.by not in ROW_KEYS:
        return
    splits = experiment.splits
    parts = {"train": experiment.samples, "validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        columns: Mapping[str, Tensor] = {}
        if isinstance(part, TensorData):
            columns = part.tensors
        elif isinstance(part, RaggedRows):
            columns = part.row_keys
        if teacher.by in columns:
            teacher.check_members(columns[teacher.by], name)


def prepare_teacher(teacher: Teacher | None, experiment: Experiment) -> Teacher | None:
    """Show the teacher of a stage the student's samples once, and move it to its device.

    A teacher that will be sharded stays where it is: it may not fit on one device.
    """
    if teacher is None:
        return None
    device = init_distributed()
    train = experiment.recipe.train
    if isinstance(teacher, Precomputes) or not (train.shard and world_size() > 1):
        teacher = move_teacher(teacher, train)
    if isinstance(teacher, Precomputes):
        loader = experiment.loader(experiment.samples, shuffle=False)
        teacher.precompute(to_device(batch, device) for batch in loader)
    return teacher


def as_teacher(nets: Sequence[Net | Teacher]) -> Teacher | None:
    """Return one network as a frozen teacher, several as an ensemble, and none as None."""
    members = [member if isinstance(member, Teacher) else Frozen(member) for member in nets]
    if not members:
        return None
    return members[0] if len(members) == 1 else Ensemble(members)


def _has_members(teacher_class: type[Teacher]) -> bool:
    return "members" in inspect.signature(teacher_class).parameters


def _with_own_source(experiment: Experiment, teacher_config: TeacherConfig) -> Experiment:
    """The experiment with the data source of a teacher, if it names one."""
    if teacher_config.data is None or teacher_config.data.name is None:
        return experiment
    name = teacher_config.data.name
    options = teacher_config.data.options
    splits = _load_source(experiment, name, options)
    require_same_tokens(splits.train, experiment.for_network(teacher_config).splits.train)
    recipe = experiment.recipe
    data = DataConfig(
        name=name,
        batch_size=recipe.data.batch_size,
        workers=recipe.data.workers,
        augment=recipe.data.augment,
        **options,
    )
    return dataclasses.replace(
        experiment, recipe=recipe.model_copy(update={"data": data}), splits=splits
    )


def _load_source(experiment: Experiment, name: str, options: dict[str, Any]) -> Splits:
    """Data of a source, loaded once for all stages and teachers."""
    recipe = experiment.recipe
    with error_context("teacher.data"):
        # ``sources`` is shared by the experiments of all stages.
        splits = shared_source(experiment.sources, name, options, recipe, "teacher.data")
        set_collation(splits, experiment.task)
        if splits.kind != experiment.splits.kind:
            raise ValueError(
                f"the labels of '{name}' are '{splits.kind}'. Expected '{experiment.splits.kind}', "
                f"as those of '{recipe.data.name}'"
            )
    return splits


def _with_own_labels(experiment: Experiment, teacher_config: TeacherConfig) -> Experiment:
    """The experiment with the number of labels that ``teacher.data.num_labeled`` sets."""
    if teacher_config.data is None or teacher_config.data.num_labeled is None:
        return experiment
    seed = experiment.recipe.seeds[0] if experiment.label_seed is None else experiment.label_seed
    with error_context("teacher.data"):
        train = few_labels(experiment.splits.train, teacher_config.data.num_labeled, seed)
    return dataclasses.replace(
        experiment, splits=dataclasses.replace(experiment.splits, train=train)
    )
