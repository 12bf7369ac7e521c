"""Scheme and batch of a recipe without the values of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Scheme, Teacher
from instil.experiment.dry_run_checks import prepare_scheme
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import build_scheme
from instil.experiment.stored_teacher import stored_teacher
from instil.experiment.teachers import combine_teachers, teacher_training_data
from instil.experiment.trained_teachers import starts_from_teacher
from instil.networks.valueless import without_values
from instil.plan.step_timer import first_step_clock
from instil.recipe import RecipeError
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig


def without_weights(recipe: Recipe) -> Recipe:
    """Return a recipe of the same training whose networks load no weights.

    Args:
        recipe: recipe of one stage.

    Raises:
        RecipeError: for stages, and for networks whose size is only known with their weights.
    """
    if recipe.has_stages:
        raise RecipeError(
            "stages: the forecast of memory reads one stage. Expected a recipe without stages. "
            "Write the stage that needs the most memory as a recipe of its own"
        )
    sections: dict[str, Any] = {"student": _without_weights(recipe.student, "student")}
    teacher = recipe.teacher
    if isinstance(teacher, list):
        sections["teacher"] = [_without_weights(config, "teacher") for config in teacher]
    elif teacher is not None:
        sections["teacher"] = _without_weights(teacher, "teacher")
    return recipe.model_copy(update=sections)


def _without_weights(config: ModelConfig, path: str) -> ModelConfig:
    if "quantization_config" in config.options:
        raise RecipeError(
            f"{path}.options.quantization_config: the size of quantised weights is known only "
            "after loading. Leave it out of the forecast, which then has weights of options.dtype"
        )
    changes: dict[str, Any] = {"weights": None, "pretrained": False}
    # A teacher without weights would count as one that is trained first, in float32.
    if isinstance(config, TeacherConfig) and config.ready:
        changes["is_trained"] = True
    return config.model_copy(update=changes)


def build_stage(experiment: Experiment, batch: Batch) -> Scheme:
    """Build the scheme of a recipe without values, and prepare it with a batch.

    Args:
        experiment: experiment of a recipe of ``without_weights``.
        batch: real batch.

    Raises:
        RecipeError: for networks or objectives that need values.
    """
    recipe = experiment.recipe
    torch.manual_seed(recipe.seeds[0])
    with without_values(), clear_errors():
        teachers = []
        for index, config in enumerate([] if recipe.store else recipe.teachers):
            data = teacher_training_data(experiment, config, index)
            teachers.append(build_network(config, data, "teacher"))
        first_teacher = None
        if teachers and starts_from_teacher(recipe.student, experiment):
            first_teacher = teachers[0]
        student = build_network(recipe.student, experiment, "student", first_teacher)
        if recipe.store:
            teacher: Teacher | None = stored_teacher(experiment)
        else:
            teacher = combine_teachers(experiment, teachers)
        scheme = build_scheme(experiment, student, teacher)
        prepare_scheme(scheme, batch)
    return scheme


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Replace errors of operations that need values.

    Raises:
        RecipeError: for an operation of the block that needs values.
    """
    try:
        yield
    # Fake tensors raise it where a shape, or the choice of a kernel, depends on values.
    except RuntimeError as error:
        raise RecipeError(
            "--ranks: a network or an objective of this recipe cannot be computed without values "
            f"({type(error).__name__}: {error}). Expected operations whose shapes are known "
            "without them. Run instil doctor without --ranks, on smaller networks"
        ) from error


def first_micro_batch(experiment: Experiment, num_parts: int) -> Batch:
    """Return a part of the first batch of a training, with its clock.

    Rows of texts have the length of the section ``data``, which the longest rows have.

    Args:
        experiment: experiment of the recipe.
        num_parts: number of parts of a batch: processes times micro-batches.

    Raises:
        RecipeError: if a batch has fewer samples.
    """
    recipe = experiment.recipe
    if recipe.data.batch_size < num_parts:
        raise RecipeError(
            f"data.batch_size: each process and micro-batch needs a sample. Expected {num_parts} "
            f"or more, got {recipe.data.batch_size}. Use a larger batch or fewer processes"
        )
    seed = recipe.seeds[0]
    loader = experiment.loader(
        experiment.train_data(seed),
        seed,
        accumulate=num_parts,
        sampler=recipe.data.sampler,
        with_mixing=True,
    )
    batch: Batch = next(iter(loader))
    return _at_full_length(batch, recipe.data.options.get("length")) | first_step_clock(seed)


def _at_full_length(batch: Batch, length: int | None) -> Batch:
    """Repeat the tokens of texts up to a length."""
    if length is None or "input_ids" not in batch:
        return batch
    shape = batch["input_ids"].shape
    columns = torch.arange(max(length, shape[1])) % shape[1]
    longer = {
        key: value[:, columns]
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.shape[:2] == shape
    }
    return batch | longer
