"""Recipes as plain data: changes by ``key=value``, and stages merged into the recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from instil.cards.closest import suggestion
from instil.recipe.errors import RecipeError, join
from instil.recipe.yaml_text import parse

REPLACED = ("objectives", "scheme", "teacher", "ensemble", "student")
"""Sections that a stage replaces as a whole."""

ALTERNATIVES = {"epochs": "steps", "steps": "epochs"}
"""Keys that exclude each other: setting one removes the other."""


def override(data: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Return a copy of plain data with ``key=value`` changes.

    Args:
        data: plain data of a recipe.
        changes: a dotted path, in which numbers are indices of a list, and a YAML value.
            ``objectives.kd=null`` removes the objective ``kd``.

    Raises:
        RecipeError: if a change is not ``key=value``, or its path does not fit the data.
    """
    changed: dict[str, Any] = _separate(data)
    for change in changes:
        key, equals, text = change.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise RecipeError(
                f"'{change}': invalid change of the recipe. Expected key=value, for example "
                "train.epochs=5"
            )
        _set(changed, parts, parse(text, f"the value of {key.strip()}"))
    return changed


def _separate(value: Any) -> Any:
    """Copy plain data. A mapping that stands in two places, as a YAML alias, becomes two."""
    if isinstance(value, Mapping):
        return {key: _separate(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_separate(entry) for entry in value]
    return copy.deepcopy(value)


def _set(data: Any, parts: list[str], value: Any) -> None:
    """Set the entry at a path, and create the mappings on the way to it."""
    container = data
    for index, part in enumerate(parts[:-1]):
        key = _key_of(container, part, parts[:index])
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
        container = container[key]
    last = _key_of(container, parts[-1], parts[:-1])
    # objectives.NAME=null removes the objective; elsewhere null is a value.
    if value is None and len(parts) == 2 and parts[0] == "objectives":
        _remove(container, last)
        return
    if isinstance(container, dict) and container.get(ALTERNATIVES.get(parts[-1], "")) is not None:
        del container[ALTERNATIVES[parts[-1]]]
    container[last] = value


def _remove(objectives: Any, name: str) -> None:
    """Remove an objective.

    Raises:
        RecipeError: if there is no such objective, as for a mistyped name.
    """
    if name not in objectives:
        names = ", ".join(objectives) or "no objectives"
        raise RecipeError(
            f"objectives.{name}: null removes an objective, and there is none of this name. The "
            f"recipe has {names}.{suggestion(name, objectives, is_listed=True)}"
        )
    del objectives[name]


def _key_of(container: Any, part: str, path: list[str]) -> Any:
    """Return one part of a path as a key of a mapping or as an index of a list."""
    if isinstance(container, list):
        if not part.isdecimal() or int(part) >= len(container):
            raise RecipeError(
                f"{join(*path)}: is a list of {len(container)}, which has no entry '{part}' "
                "(the first is 0)"
            )
        return int(part)
    if not isinstance(container, dict):
        raise RecipeError(f"{join(*path)}: is {container!r}, so nothing inside it can be set")
    return part


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], replaced: Iterable[str] = ()
) -> dict[str, Any]:
    """Return ``base`` with the entries of ``over``.

    Args:
        base: plain data.
        over: plain data. Mappings are merged recursively, other values are replaced.
        replaced: keys whose mappings are replaced as a whole.
    """
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        both_mappings = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        if both_mappings and key not in replaced:
            merged[key] = merge(merged[key], value)
            continue
        if value is not None and key in ALTERNATIVES:
            merged.pop(ALTERNATIVES[key], None)
        merged[key] = copy.deepcopy(value)
    return merged
