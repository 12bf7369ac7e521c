"""What teachers are trained on before they teach, and how several of them answer as one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from instil import catalogue
from instil.capabilities import Precomputes
from instil.cards import closest, has_tag
from instil.core import Net, Teacher
from instil.data.labels import few_labels
from instil.data.splits import numbered
from instil.engine import init_distributed
from instil.experiment.experiment import Experiment
from instil.experiment.sources import data_source
from instil.recipe import RecipeError, build_options, error_context
from instil.recipe.sections import DataConfig, TeacherConfig
from instil.tasks.bases.task import to_device
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen


def teacher_training_data(stage: Experiment, spec: TeacherConfig, number: int) -> Experiment:
    """What a teacher is trained on first: the recipe's data or those that it names; where members must not share samples, a part of these.

    Raises RecipeError for data whose samples or labels are not of the kind of the recipe's.
    """
    experiment = _with_own_labels(_own_data(stage, spec), spec)
    if not has_tag(combiner_class(stage), "disjoint_data") or spec.ready:
        return experiment
    sharing = [
        n
        for n, other in enumerate(stage.recipe.teachers)
        if other.data == spec.data and not (other.ready or other.earlier)
    ]
    order = torch.randperm(len(experiment.splits.train), generator=torch.Generator().manual_seed(0))
    if len(sharing) > len(order):
        raise RecipeError(
            f"teacher: {len(sharing)} members share {len(order)} samples, of which each needs its own; take fewer members"
        )
    part = torch.tensor_split(order, len(sharing))[sharing.index(number)]
    return dataclasses.replace(
        experiment,
        splits=dataclasses.replace(
            experiment.splits, train=numbered(experiment.splits.train, part)
        ),
    )


def _own_data(stage: Experiment, spec: TeacherConfig) -> Experiment:
    """The experiment with the source that a teacher names; the stage's own without one."""
    if spec.data is None or spec.data.name is None:
        return stage
    return _own(stage, spec.data.name, spec.data.options)


def _with_own_labels(experiment: Experiment, spec: TeacherConfig) -> Experiment:
    """The experiment with as many labels as ``teacher.data.num_labeled`` lets a teacher see."""
    if spec.data is None or spec.data.num_labeled is None:
        return experiment
    seed = experiment.recipe.seeds[0] if experiment.label_seed is None else experiment.label_seed
    with error_context("teacher.data"):
        train = few_labels(experiment.splits.train, spec.data.num_labeled, seed)
    return dataclasses.replace(
        experiment, splits=dataclasses.replace(experiment.splits, train=train)
    )


def _own(stage: Experiment, name: str, options: dict[str, Any]) -> Experiment:
    """The experiment of a teacher that has data of its own."""
    recipe = stage.recipe
    key = repr((name, sorted(options.items())))
    with error_context("teacher.data"):
        if key not in stage.sources:
            stage.sources[key] = data_source(name, options, recipe, "teacher.data")
        splits = stage.sources[key]
        if splits.kind != stage.splits.kind:
            raise ValueError(
                f"the labels of '{name}' are '{splits.kind}', those of '{recipe.data.name}' are '{stage.splits.kind}'"
            )
    data = DataConfig(
        name=name,
        batch_size=recipe.data.batch_size,
        workers=recipe.data.workers,
        augment=recipe.data.augment,
        **options,
    )
    recipe = recipe.model_copy(update={"data": data})
    return dataclasses.replace(stage, recipe=recipe, splits=splits)


def teacher_class_names(stage: Experiment, number: int) -> Sequence[str]:
    """The classes of a teacher's logits: those that the recipe says, or of what it is trained on."""
    spec = stage.recipe.teachers[number]
    return spec.classes or _own_data(stage, spec).splits.classes


def combiner_class(stage: Experiment) -> type[Teacher]:
    """How the teachers of a stage answer as one. Raises RecipeError for what is no way of several to do so."""
    if stage.recipe.ensemble is None:
        return Ensemble
    name = stage.recipe.ensemble.type
    kind: type[Teacher] = catalogue.find("teacher", name)
    if "members" not in inspect.signature(kind).parameters:
        several = [
            one
            for one in catalogue.names("teacher")
            if "members" in inspect.signature(catalogue.find("teacher", one)).parameters
        ]
        raise RecipeError(f"ensemble: '{name}' is one net; {closest(name, several)}")
    return kind


def combine_teachers(stage: Experiment, nets: Sequence[Net | Teacher]) -> Teacher | None:
    """The teachers of a stage as one; errors begin with ``combine_teachers``."""
    asked, kind = stage.recipe.ensemble, combiner_class(stage)
    if asked is None or not nets:
        return as_teacher(nets)
    options = build_options("teacher", asked.type, asked.options, "ensemble")
    if has_tag(kind, "merged_classes"):
        options |= {
            "member_class_names": [
                teacher_class_names(stage, number) for number in range(len(nets))
            ],
            "class_names": stage.splits.classes,
        }
    with error_context("ensemble"):
        made: Teacher = kind(nets, **options)
    return made


def prepare_teacher(teacher: Teacher | None, stage: Experiment) -> Teacher | None:
    """The teacher, on its device, after it has met what it will be asked about."""
    if teacher is not None:
        device = init_distributed()
        teacher = teacher.to(device)
        if isinstance(teacher, Precomputes):
            teacher.precompute(
                to_device(batch, device) for batch in stage.loader(stage.samples, shuffle=False)
            )
    return teacher


def as_teacher(nets: Sequence[Net | Teacher]) -> Teacher | None:
    """One net as a fixed teacher, several as an ensemble, none as None."""
    members = [member if isinstance(member, Teacher) else Frozen(member) for member in nets]
    return None if not members else members[0] if len(members) == 1 else Ensemble(members)
