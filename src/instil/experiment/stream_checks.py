"""Checks of a recipe whose training data are a stream, without a known number of samples."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import NoReturn

from instil import catalogue
from instil.capabilities import Precomputes
from instil.cards import has_tag
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.recipe.errors import RecipeError, join
from instil.recipe.sections import Recipe, TeacherConfig
from instil.recipe.stages import stages

IN_MEMORY = "Remove the entry, or use a source that is not streamed"


def check_stream(recipe: Recipe, samples: Samples) -> None:
    """Check that no section of a recipe needs the number or the rows of streamed samples.

    Args:
        recipe: the recipe.
        samples: its training samples.

    Raises:
        RecipeError: for a section that does, with the path of the entry and the remedy.
    """
    if not isinstance(samples, Stream):
        return
    _check_data(recipe)
    _check_baselines(recipe)
    for index, stage in enumerate(stages(recipe)):
        prefix = f"stages.{index}" if recipe.stages else ""
        _check_stage(stage, prefix)


def _check_baselines(recipe: Recipe) -> None:
    refused = []
    for name in recipe.baselines:
        kind = catalogue.find("baseline", name)
        if kind.needs_teacher and not kind.is_data_free:
            refused.append(name)
    if refused:
        others = [name for name in recipe.baselines if name not in refused]
        reason = f"{refused[0]} reads the teacher's outputs for every training sample"
        _refuse("baselines", reason, f"Set baselines: [{', '.join(others)}]")


def _check_data(recipe: Recipe) -> None:
    data = recipe.data
    if data.num_labeled is not None:
        _refuse("data.num_labeled", "the labelled samples are chosen from all training samples")
    if data.surrogate is not None:
        _refuse("data.surrogate", "the number of these images is that of the training samples")
    if data.sampler != "shuffled":
        _refuse("data.sampler", f"{data.sampler} chooses from all training samples")
    for option in ("mixup", "partner"):
        if getattr(data.augment, option):
            _refuse(f"data.augment.{option}", "the second image is chosen from all images")


def _check_stage(stage: Recipe, prefix: str) -> None:
    sections = [("train", stage.train)]
    trains_teacher = not all(config.ready or config.earlier for config in stage.teachers)
    if trains_teacher and stage.teacher_train is not None:
        sections.append(("teacher_train", stage.teacher_train))
    for name, train in sections:
        if train.steps is None:
            path = join(prefix, name, "epochs")
            raise RecipeError(
                f"{path}: the training data are a stream, whose number of steps per epoch is "
                f"unknown. Expected the length in steps. Set {join(prefix, name, 'steps')}"
            )
    if stage.store is not None:
        _refuse(join(prefix, "store"), "it has the outputs of every training sample")
    for config in stage.teachers:
        _check_teacher(config, join(prefix, "teacher"))
    if stage.ensemble is not None:
        combiner = catalogue.find("teacher", stage.ensemble.type)
        if issubclass(combiner, Precomputes) or has_tag(combiner, "disjoint_data"):
            _refuse(join(prefix, "ensemble"), f"{stage.ensemble.type} reads all training samples")
    scheme = catalogue.find("scheme", stage.scheme.type)
    if "num_samples" in inspect.signature(scheme).parameters:
        _refuse(join(prefix, "scheme"), f"{stage.scheme.type} has a table of all training samples")
    for path in _balanced_weights(stage, prefix):
        _refuse(path, "balanced counts the labels of all training samples", "Set a list of weights")


def _check_teacher(config: TeacherConfig, path: str) -> None:
    if config.precompute:
        _refuse(f"{path}.precompute", "it computes the outputs of every training sample once")
    if config.is_fitted:
        _refuse(f"{path}.model", f"{config.model} is fitted on all training samples at once")
    if config.by_index:
        _refuse(f"{path}.model", f"{config.model} has predictions by sample key")
    if config.data is not None and config.data.num_labeled is not None:
        _refuse(f"{path}.data.num_labeled", "the labelled samples are chosen from all samples")


def _balanced_weights(stage: Recipe, prefix: str) -> Iterator[str]:
    """Recipe paths of class weights that are counted."""
    for name, goal in stage.objectives.items():
        if goal.options.get("class_weights") == "balanced":
            yield join(prefix, "objectives", name, "class_weights")


def _refuse(path: str, reason: str, remedy: str = IN_MEMORY) -> NoReturn:
    raise RecipeError(
        f"{path}: {reason}, and the training data are a stream, whose number of samples is "
        f"unknown. Expected data in memory. {remedy}"
    )
