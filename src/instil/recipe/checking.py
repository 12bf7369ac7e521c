"""Validation of a recipe: all errors at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from instil import catalogue
from instil.catalogue.signatures import plain
from instil.engine import find_optimizer
from instil.recipe.errors import EntryPath, RecipeError, join, problem_lines
from instil.recipe.options import check, check_network
from instil.recipe.overrides import merge
from instil.recipe.sections import OptimizerConfig, Recipe, SchemeConfig, TaskConfig
from instil.recipe.tap_roles import tap_errors

NAME_KEYS = {
    "task": "name",
    "scheme": "type",
    "teacher": "type",
    "objective": "type",
    "weighting": "type",
    "balance": "type",
    "metric": "type",
    "optimizer": "type",
}
DEFAULT_NAMES = {
    "task": TaskConfig().name,
    "scheme": SchemeConfig().type,
    "optimizer": OptimizerConfig().type,
}
"""Methods of the kinds that a recipe need not name."""
RESERVED_KEYS = {
    "task": {"name"},
    "scheme": {"type"},
    "teacher": {"type"},
    "objective": {"type", "weight", "sample_weight"},
    "weighting": {"type"},
    "balance": {"type"},
    "metric": {"type"},
    "optimizer": {"type", "groups", "match"},
}

NamedSection = tuple[str, Any, str]
"""Kind, section and recipe path."""


def parse_recipe(whole: Mapping[str, Any]) -> Recipe:
    """Parse plain data. Strict: text is never converted to a number."""
    # Through JSON: strict validation of Python data would refuse a list where a tuple is declared.
    return Recipe.model_validate_json(json.dumps(whole, default=plain), strict=True)


def validation_errors(whole: Mapping[str, Any]) -> list[str]:
    """Return all errors of a resolved recipe, in its sections and in the options of methods."""
    lines: list[str] = []
    try:
        parse_recipe(whole)
    except ValidationError as error:
        lines += problem_lines(error, whole, _section_of)
    # Errors of sections and of options in one pass, so that a user can mend all of them at once.
    for kind, name, options, path in named_methods(whole):
        try:
            build_options(kind, name, options, path)
        except RecipeError as error:
            lines.append(str(error))
    networks = list(_networks(whole))
    lines += tap_errors(networks, list(named_methods(whole)))
    for section, path in networks:
        try:
            check_network(section, path)
        except RecipeError as error:
            lines.append(str(error))
    return lines + _baseline_errors(whole.get("baselines"))


def _networks(whole: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield section and recipe path of the student and of each teacher."""
    for path, section in {"student": whole.get("student"), **_teachers(whole)}.items():
        if isinstance(section, Mapping):
            yield section, path


def _teachers(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section of each teacher by its recipe path."""
    teacher = whole.get("teacher")
    if isinstance(teacher, list):
        return {f"teacher.{index}": member for index, member in enumerate(teacher)}
    return {"teacher": teacher}


def _baseline_errors(names: Any) -> list[str]:
    """Return one line for each name that no baseline has."""
    lines = []
    for index, name in enumerate(names if isinstance(names, list) else []):
        try:
            catalogue.find("baseline", str(name))
        except ValueError as error:
            lines.append(f"baselines.{index}: {error}")
    return lines


def _section_of(entry_path: EntryPath) -> tuple[str, list[str]]:
    """Return name and keys of the section that contains an unknown key."""
    section: Any = Recipe
    for part in entry_path[:-1]:
        if part in section.model_fields:
            section = _model_in(section.model_fields[part].annotation)
    return join(*entry_path[:-1]) or "A recipe", list(section.model_fields)


def _model_in(annotation: Any) -> Any:
    """Return the first pydantic model in an annotation; None without one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(part) for part in get_args(annotation))
    return next((model for model in models if model is not None), None)


def named_methods(whole: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield kind, name, options and path of each method and optimizer that a recipe names.

    Sections that are not mappings or have no name are skipped.
    """
    for kind, section, path in _sections(whole):
        if not isinstance(section, Mapping):
            continue
        name = section.get(NAME_KEYS[kind], DEFAULT_NAMES.get(kind))
        if isinstance(name, str):
            reserved = RESERVED_KEYS[kind]
            options = {key: value for key, value in section.items() if key not in reserved}
            yield kind, name, options, path


def _sections(whole: Mapping[str, Any]) -> Iterator[NamedSection]:
    """Yield all sections that name a method or an optimizer."""
    yield "task", whole.get("task"), "task"
    yield "scheme", whole.get("scheme"), "scheme"
    objectives = whole.get("objectives")
    for key, objective in objectives.items() if isinstance(objectives, Mapping) else ():
        path = f"objectives.{key}"
        yield "objective", objective, path
        if isinstance(objective, Mapping):
            yield "weighting", objective.get("sample_weight"), f"{path}.sample_weight"
    metrics = whole.get("metrics")
    for key, metric in metrics.items() if isinstance(metrics, Mapping) else ():
        yield "metric", metric, f"metrics.{key}"
    yield "balance", whole.get("balance"), "balance"
    yield "teacher", whole.get("ensemble"), "ensemble"
    for path, member in _teachers(whole).items():
        if isinstance(member, Mapping) and "scheme" in member:
            yield "scheme", member["scheme"], f"{path}.scheme"
    yield from _optimizers(whole.get("train"), "train")
    yield from _optimizers(whole.get("teacher_train"), "teacher_train")


def _optimizers(train: Any, path: str) -> Iterator[NamedSection]:
    """Yield each optimizer of a training section; learners and groups inherit its options."""
    if not isinstance(train, Mapping) or not isinstance(train.get("optimizer", {}), Mapping):
        return
    common = train.get("optimizer", {})
    yield "optimizer", common, f"{path}.optimizer"
    if not _has_optimizer(common):
        # Learners and groups would repeat the error.
        return
    learners = train.get("optimizers", {})
    for learner, changes in learners.items() if isinstance(learners, Mapping) else ():
        if isinstance(changes, Mapping):
            yield "optimizer", merge(common, changes), f"{path}.optimizers.{learner}"
    groups = common.get("groups", [])
    for index, group in enumerate(groups if isinstance(groups, list) else []):
        if isinstance(group, Mapping):
            section = {"type": common.get("type", DEFAULT_NAMES["optimizer"]), **group}
            yield "optimizer", section, f"{path}.optimizer.groups.{index}"


def _has_optimizer(section: Mapping[str, Any]) -> bool:
    """Whether the optimizer of a section exists."""
    try:
        find_optimizer(str(section.get("type", DEFAULT_NAMES["optimizer"])))
    except ValueError:
        return False
    return True


def build_options(kind: str, name: str, options: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return validated keyword arguments for a method of the catalogue or an optimizer of torch.

    Args:
        kind: kind of the method, or ``optimizer``.
        name: name of the method or optimizer.
        options: options as read from a recipe.
        path: recipe path, for messages.

    Raises:
        RecipeError: for an unknown name, and with one line per wrong option.
    """
    try:
        target = find_optimizer(name) if kind == "optimizer" else catalogue.find(kind, name)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None
    is_group = kind == "optimizer" and ".groups." in path
    other_keys = ("match",) if is_group else ()
    return check(target, options, path, schedules=kind != "optimizer", other_keys=other_keys)
