"""Everything that is wrong with a recipe, found at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from instil import catalogue
from instil.catalogue.signatures import plain
from instil.engine import optimizer_named
from instil.recipe.errors import Place, RecipeError, join, problems
from instil.recipe.options import check
from instil.recipe.overrides import merge
from instil.recipe.sections import Recipe

NAME_KEY = {
    "task": "name",
    "scheme": "type",
    "teacher": "type",
    "objective": "type",
    "weighting": "type",
    "balance": "type",
    "optimizer": "type",
}
DEFAULT = {"task": "classification", "scheme": "offline", "optimizer": "adamw"}
RESERVED = {
    "task": {"name"},
    "scheme": {"type"},
    "teacher": {"type"},
    "objective": {"type", "weight", "sample_weight"},
    "weighting": {"type"},
    "balance": {"type"},
    "optimizer": {"type", "groups", "match"},
}


def read(whole: Mapping[str, Any]) -> Recipe:
    """Plain data as sections; strict, so that text is never taken for a number."""
    return Recipe.model_validate_json(json.dumps(whole, default=plain), strict=True)


def wrong(whole: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a resolved recipe: its sections, and the options of the methods it names."""
    found: list[str] = []
    try:
        read(whole)
    except ValidationError as error:
        found += problems(error, whole, _section)
    for kind, name, chosen, path in methods(whole):
        try:
            build_options(kind, name, chosen, path)
        except RecipeError as error:
            found.append(str(error))
    return found


def _section(place: Place) -> tuple[str, list[str]]:
    """The name and keys of the section in which an unknown key stands."""
    section: Any = Recipe
    for part in place[:-1]:
        section = (
            _model_in(section.model_fields[part].annotation)
            if part in section.model_fields
            else section
        )
    return join(*place[:-1]) or "a recipe", list(section.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def methods(whole: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Kind, name, options and path of each method and optimizer in a recipe, as far as they can be read."""
    goals = whole.get("objectives")
    sections = [("task", whole.get("task"), "task"), ("scheme", whole.get("scheme"), "scheme")]
    for key, goal in goals.items() if isinstance(goals, Mapping) else ():
        weighting = goal.get("sample_weight") if isinstance(goal, Mapping) else None
        sections += [
            ("objective", goal, f"objectives.{key}"),
            ("weighting", weighting, f"objectives.{key}.sample_weight"),
        ]
    sections += [
        ("balance", whole.get("balance"), "balance"),
        ("teacher", whole.get("together"), "together"),
    ]
    teacher = whole.get("teacher")
    members = (
        {f"teacher.{n}": one for n, one in enumerate(teacher)}
        if isinstance(teacher, list)
        else {"teacher": teacher}
    )
    sections += [
        ("scheme", one["scheme"], f"{path}.scheme")
        for path, one in members.items()
        if isinstance(one, Mapping) and "scheme" in one
    ]
    sections += [
        ("optimizer", *place)
        for train in ("train", "teacher_train")
        for place in _optimizers(whole.get(train), train)
    ]
    for kind, section, path in sections:
        name = (
            section.get(NAME_KEY[kind], DEFAULT.get(kind)) if isinstance(section, Mapping) else None
        )
        if isinstance(section, Mapping) and isinstance(name, str):
            yield (
                kind,
                name,
                {key: value for key, value in section.items() if key not in RESERVED[kind]},
                path,
            )


def _optimizers(train: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Each optimizer of a training section, those of single learners and groups with what they inherit."""
    if not isinstance(train, Mapping) or not isinstance(train.get("optimizer", {}), Mapping):
        return
    common = train.get("optimizer", {})
    yield common, f"{path}.optimizer"
    learners = train.get("optimizers", {})
    for learner, own in learners.items() if isinstance(learners, Mapping) else ():
        if isinstance(own, Mapping):
            yield merge(common, own), f"{path}.optimizers.{learner}"
    groups = common.get("groups", [])
    for number, own in enumerate(groups if isinstance(groups, list) else []):
        if isinstance(own, Mapping):
            yield {"type": common.get("type", "adamw"), **own}, f"{path}.optimizer.groups.{number}"


def build_options(kind: str, name: str, options: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Checked keyword arguments for a method of the catalogue, or for an optimizer of torch; RecipeError with ``path`` where one is wrong."""
    try:
        target = optimizer_named(name) if kind == "optimizer" else catalogue.find(kind, name)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None
    return check(target, options, path, schedules=kind != "optimizer")
