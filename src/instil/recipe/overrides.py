"""Recipes as plain data: read from YAML, changed by ``key=value``, merged stage by stage."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import yaml

from instil.recipe.errors import RecipeError, join

REPLACED = ("objectives", "scheme", "teacher", "together", "student")
"""Sections that a stage gives anew instead of changing single entries."""
INSTEAD = {"epochs": "steps", "steps": "epochs"}
"""Keys of which a later one takes the place of an earlier one."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error and ``1e-3`` is a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse(text: str, where: str) -> Any:
    """YAML as plain data; RecipeError with ``where`` and the line for text that is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        context = f" {error.context}" if error.context else ""
        raise RecipeError(f"{where}{line}: {error.problem}{context}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: {error}") from None


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
