"""Data of each stage of a recipe, with labels in the classes of the stage's student."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from instil import catalogue
from instil.data.class_subset import chosen_classes, splits_of_classes
from instil.data.keys import with_unique_indices
from instil.data.splits import Splits
from instil.experiment.recipe_checks import common_teacher_tokenizer
from instil.experiment.sources import data_source
from instil.experiment.stage_samples import StageData, with_earlier_tests
from instil.experiment.stream_checks import check_stream
from instil.recipe import RecipeError, error_context, stages
from instil.recipe.sections import ModelConfig, Recipe

MAX_NAMED = 5
"""Number of classes that a message names."""


def load_data(recipe: Recipe, trust_code: bool = True) -> list[StageData]:
    """Load the data of all stages of a recipe from their sources.

    Args:
        recipe: the whole recipe.
        trust_code: whether a function of the user may be called for the data.

    Raises:
        RecipeError: for data that cannot be read, and for classes that do not fit.
        UntrustedCode: for data of a user's function without ``trust_code``.
    """
    with error_context("data"):
        tokenizer = common_teacher_tokenizer(recipe)
    teachers = itertools.chain(*(stage.teachers for stage in stages(recipe)))
    by_index = any(config.by_index for config in teachers)

    def load(stage: Recipe) -> Splits:
        splits = data_source(
            stage.data.name,
            stage.data.options,
            stage,
            tokenizer=tokenizer,
            trust_code=trust_code,
        )
        return with_unique_indices(splits) if by_index else splits

    data_of_stages = load_stage_data(recipe, load, keep_index=by_index)
    for data in data_of_stages:
        check_stream(recipe, data.splits.train)
    return data_of_stages


def check_stage_data(recipe: Recipe, data_of_stages: Sequence[StageData]) -> None:
    """Check that baselines and store fit stages with different data.

    Args:
        recipe: the whole recipe.
        data_of_stages: data of each stage.

    Raises:
        RecipeError: for a store, and for a baseline that is not trained stage after stage.
    """
    if not has_different_data(data_of_stages):
        return
    if recipe.store is not None:
        raise RecipeError(
            "store: recorded outputs belong to one set of samples, but the stages have different "
            "data. Expected stages with the same data. Remove store"
        )
    for index, name in enumerate(recipe.baselines):
        kind = catalogue.find("baseline", name)
        if kind.needs_teacher or kind.sees_unlabeled:
            raise RecipeError(
                f"baselines.{index}: {name} learns from a teacher, but the stages have different "
                "data, and each has its own teacher. Expected baselines that learn from labels, "
                "such as alone"
            )
    kinds = {data.splits.kind for data in data_of_stages}
    if len(kinds) > 1:
        raise RecipeError(
            f"stages: labels of different kinds ({', '.join(sorted(kinds))}). Expected data with "
            "labels of one kind, because all stages have the task of the recipe"
        )


def has_different_data(data_of_stages: Sequence[StageData]) -> bool:
    """Whether the stages have different samples.

    Args:
        data_of_stages: data of each stage; empty for the experiment of one stage.
    """
    return any(data.own_test is not data_of_stages[0].own_test for data in data_of_stages)


def load_stage_data(
    recipe: Recipe, load: Callable[[Recipe], Splits], keep_index: bool = False
) -> list[StageData]:
    """Load the data of all stages; stages with the same data share one object.

    Args:
        recipe: the whole recipe.
        load: loads the data of a stage.
        keep_index: whether samples of a class subset keep their index.

    Raises:
        RecipeError: for classes that do not exist, or that the student of a stage lacks.
    """
    sources: dict[str, Splits] = {}
    selections: dict[tuple[object, ...], StageData] = {}
    heads: dict[str, tuple[str, ...]] = {}
    data_of_stages: list[StageData] = []
    for index, stage in enumerate(stages(recipe)):
        path = f"stages.{index}" if recipe.stages else ""
        # Errors of data that all stages share have the path of the recipe's data.
        with error_context("" if stage.data == recipe.data else path), error_context("data"):
            source = repr((stage.data.name, sorted(stage.data.options.items())))
            if source not in sources:
                sources[source] = load(stage)
            splits = sources[source]
            learned = _learned_classes(stage, splits)
        with error_context(path):
            with error_context("student"):
                classes = _student_classes(stage.student, splits, learned, heads)
            with error_context("data"):
                tested = _tested_classes(stage, splits, learned, classes)
                key = (source, learned, tested, classes)
                if key not in selections:
                    selections[key] = _stage_data(splits, learned, tested, classes, keep_index)
                data = replace(selections[key], earlier_classes=dict(heads))
                if stage.data.test_stages == "seen":
                    data = with_earlier_tests(data, data_of_stages, stage)
        data_of_stages.append(data)
        heads |= {"previous": classes, f"stage:{stage.name}": classes}
    return data_of_stages


def first_label_seed(recipe: Recipe) -> int | None:
    """Return the first seed if a teacher has a limited number of labels, else None.

    Args:
        recipe: the whole recipe.
    """
    for stage in stages(recipe):
        for config in stage.teachers:
            if config.data is not None and config.data.num_labeled is not None:
                return recipe.seeds[0]
    return None


def _learned_classes(recipe: Recipe, splits: Splits) -> tuple[str, ...]:
    choice = recipe.data.class_subset
    if choice is None:
        return tuple(splits.classes)
    return chosen_classes(choice, splits.classes, "class_subset")


def _student_classes(
    student: ModelConfig,
    splits: Splits,
    learned: tuple[str, ...],
    heads: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    """Return the classes of the student of a stage: old ones first."""
    old = heads.get(student.model)
    if old is None or splits.kind != "single":
        return learned
    new = tuple(name for name in learned if name not in old)
    if new and not student.grow_head:
        raise ValueError(
            f"the student of the earlier stage has no output for {_listed(new)}. Expected data of "
            "its classes. Set grow_head: true to add an output for each new class"
        )
    return (*old, *new)


def _tested_classes(
    recipe: Recipe, splits: Splits, learned: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[str, ...]:
    choice = recipe.data.test_classes
    if choice is None:
        return learned
    if choice == "seen":
        return tuple(name for name in classes if name in splits.classes)
    tested = chosen_classes(choice, splits.classes, "test_classes")
    if unseen := [name for name in tested if name not in classes]:
        raise ValueError(
            f"test_classes: the student has no output for {_listed(unseen)}. Expected classes that "
            "it learns in this or an earlier stage"
        )
    return tested


def _stage_data(
    splits: Splits,
    learned: tuple[str, ...],
    tested: tuple[str, ...],
    classes: tuple[str, ...],
    keep_index: bool,
) -> StageData:
    source_classes = tuple(splits.classes)
    # The same object where nothing changes: recorded teacher outputs belong to it.
    if classes == source_classes and set(learned) == set(tested) == set(source_classes):
        return StageData(splits, learned, {}, splits.validation, splits.test)
    selected = own = splits_of_classes(splits, learned, tested, classes, keep_index)
    if set(tested) != set(learned):
        own = splits_of_classes(splits, learned, learned, classes, keep_index)
    return StageData(selected, learned, {}, own.validation, own.test)


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    shown = ", ".join(names[:MAX_NAMED])
    more = len(names) - MAX_NAMED
    noun = "class" if len(names) == 1 else "classes"
    return f"{noun} {shown}" + (f" and {more} more" if more > 0 else "")
