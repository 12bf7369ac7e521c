"""Checks of a recipe against its task and data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from instil import catalogue
from instil.cards.closest import did_you_mean
from instil.data.splits import Splits
from instil.recipe import error_context, label_objectives, stages
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, Recipe

PRETRAINED_BUILDERS = ("gguf", "networks:gguf")
"""Builders of models that always have trained weights."""


def has_trained_weights(config: ModelConfig) -> bool:
    """Whether a model is built with trained weights, according to its section of the recipe."""
    has_weights = config.weights is not None or config.is_trained or config.pretrained
    return has_weights or config.model in PRETRAINED_BUILDERS


def check_label_kind(task: Any, splits: Splits, recipe: Recipe) -> None:
    """Check that the labels of the data have the kind that the task is trained on.

    Args:
        task: task of the recipe.
        splits: data of the recipe.
        recipe: the recipe, for messages.

    Raises:
        ValueError: if they have another kind.
    """
    if task.kind == splits.kind:
        return
    labels_are = f"the labels of '{recipe.data.name}' are '{splits.kind}'"
    if splits.kind in task.kinds:
        raise ValueError(f"kind is '{task.kind}', but {labels_are}. Set task.kind: {splits.kind}")
    raise ValueError(
        f"{recipe.task.name} needs labels of the kind {' or '.join(task.kinds)}, but {labels_are}. "
        "Use another task, or data with such labels"
    )


def check_several_classes(splits: Splits, recipe: Recipe) -> None:
    """Check that data with one class per sample have at least two classes, or none.

    One class is enough if no network learns from the labels.

    Args:
        splits: data of the recipe.
        recipe: the recipe.

    Raises:
        ValueError: if there is only one class.
    """
    # Data without classes, such as pairs of images and texts, have no class to tell apart.
    is_single = splits.kind == "single" and len(splits.classes) == 1
    if is_single and _learns_labels(recipe):
        raise ValueError(
            f"all {splits.train.noun}s are of one class ({splits.classes[0]}). Expected samples "
            "of two classes or more"
        )


def _learns_labels(recipe: Recipe) -> bool:
    """Whether a network of the recipe is trained by labels."""
    if any(catalogue.find("baseline", name).trains for name in recipe.baselines):
        return True
    for stage in stages(recipe):
        if not all(has_trained_weights(config) for config in stage.teachers):
            return True
        for goal in stage.objectives.values():
            objective = catalogue.find("objective", goal.type)
            if objective.card.source == "labels" or objective.items.labelled:
                return True
    return False


def check_baselines(task: Any, recipe: Recipe) -> None:
    """Check that the task defines the baselines of the recipe.

    Args:
        task: task of the recipe.
        recipe: the recipe.

    Raises:
        RecipeError: for a baseline that is undefined for the task, its labels, or a student
            without data.
    """
    is_data_free = recipe.data.surrogate is not None
    kinds = {name: catalogue.find("baseline", name) for name in catalogue.names("baseline")}
    defined = []
    for name, kind in kinds.items():
        if kind.is_data_free == is_data_free and kind.applies(task):
            defined.append(name)
    title = f"{task.title} with '{task.kind}' labels"
    if is_data_free:
        title = "a student that sees no data"
    with error_context("baselines"):
        _check_defined(recipe, defined, title)
        for name in recipe.baselines:
            task.check(label_objectives(recipe, *kinds[name].label_objectives(task)))
    _check_exported_arm(recipe)


def check_drawn_noise(task: Any, recipe: Recipe) -> None:
    """Check teachers whose outputs depend on noise that is drawn in every step.

    Args:
        task: task of the recipe.
        recipe: the recipe.

    Raises:
        RecipeError: for recorded outputs, and for several teachers in a stage.
    """
    if not task.draws_noise:
        return
    for stage in stages(recipe):
        conflicts = {
            "store": stage.store is not None,
            "teacher.precompute": any(config.precompute for config in stage.teachers),
        }
        for key, is_set in conflicts.items():
            if is_set:
                raise RecipeError(
                    f"{key}: teachers of the task {task.title} read noise that is drawn in every "
                    f"step. Expected a teacher that runs. Remove {key}"
                )
        if len(stage.teachers) > 1 or any(config.num_replicas > 1 for config in stage.teachers):
            raise RecipeError(
                f"teacher: outputs of several teachers of the task {task.title} cannot be "
                "combined. Expected one teacher"
            )


def common_teacher_tokenizer(recipe: Recipe) -> str | None:
    """Return the tokenizer of all teachers, None if it is the tokenizer of the data.

    Raises:
        ValueError: if teachers have different tokenizers.
    """
    tokenizers: dict[str | None, None] = {}
    for stage in stages(recipe):
        tokenizers.update(dict.fromkeys(config.tokenizer for config in stage.teachers))
    if len(tokenizers) > 1:
        names = ", ".join(name or "the tokenizer of the data" for name in tokenizers)
        raise ValueError(f"the teachers have several tokenizers. Expected one for all, got {names}")
    return next(iter(tokenizers), None)


def _check_defined(recipe: Recipe, defined: Collection[str], title: str) -> None:
    undefined = [name for name in recipe.baselines if name not in defined]
    if undefined:
        raise ValueError(
            f"{undefined[0]} is undefined for {title}. Expected one of {', '.join(defined)}"
        )


def _check_exported_arm(recipe: Recipe) -> None:
    arms = ["distilled", *recipe.baselines]
    if recipe.exported_arm not in arms:
        raise RecipeError(
            f"exported_arm: expected distilled or one of baselines ({', '.join(recipe.baselines)})"
            f", got {recipe.exported_arm}.{did_you_mean(recipe.exported_arm, arms)}"
        )
