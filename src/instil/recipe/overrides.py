"""Recipes as plain data: read from YAML, changed by ``key=value``, merged stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from instil.recipe.errors import RecipeError, join
from instil.recipe.yaml_text import parse

REPLACED = ("objectives", "scheme", "teacher", "together", "student")
"""Sections that a stage gives anew instead of changing single entries."""
INSTEAD = {"epochs": "steps", "steps": "epochs"}
"""Keys of which a later one takes the place of an earlier one."""


def override(data: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A copy with ``key=value`` changes: a dotted path (numbers are places in a list) and a YAML value; ``objectives.kd=null`` removes kd."""
    changed = copy.deepcopy(dict(data))
    for change in changes:
        key, equals, text = change.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise RecipeError(
                f"'{change}' is no change of the recipe; write key=value, for example train.epochs=5"
            )
        _set(changed, parts, parse(text, f"the value of {key.strip()}"))
    return changed


def _set(data: Any, parts: list[str], value: Any) -> None:
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(data, list):
            if not part.isdecimal() or int(part) >= len(data):
                raise RecipeError(
                    f"{join(*parts[:number])}: is a list of {len(data)}, which has no place '{part}' (the first is 0)"
                )
            place: Any = int(part)
        elif isinstance(data, dict):
            place = part
        else:
            raise RecipeError(
                f"{join(*parts[:number])}: is {data!r}, so nothing inside it can be set"
            )
        if not last:
            if isinstance(data, dict) and data.get(place) is None:
                data[place] = {}
            data = data[place]
        elif value is None and len(parts) == 2 and parts[0] == "objectives":
            data.pop(place, None)
        else:
            if isinstance(data, dict) and data.get(INSTEAD.get(part, "")) is not None:
                del data[INSTEAD[part]]
            data[place] = value


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], replaced: Iterable[str] = ()
) -> dict[str, Any]:
    """``base`` with the entries of ``over``, mapping by mapping; those named ``replaced`` are taken whole."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        if (
            isinstance(value, Mapping)
            and isinstance(merged.get(key), Mapping)
            and key not in replaced
        ):
            merged[key] = merge(merged[key], value)
            continue
        if value is not None and key in INSTEAD:
            merged.pop(INSTEAD[key], None)
        merged[key] = copy.deepcopy(value)
    return merged
