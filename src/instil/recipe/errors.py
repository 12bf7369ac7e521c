"""What is wrong with a recipe, in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from instil.catalogue.user_code import UntrustedCode

NUMBERS = {"float_type", "float_parsing", "decimal_type"}
WHOLE = {"int_type", "int_parsing", "int_from_float", "int_parsing_size"}
WORDS = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "path_type": "a path",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "a name of letters, digits and _",
}
BOUNDS = {
    "greater_than": ("gt", "a number greater than"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number less than"),
    "less_than_equal": ("le", "a number of at most"),
}


IN_A_NET = ("taps", "changes", "freeze", "replace")
"""Entries of a net that those name who make it, and who do not know whose it is."""


class RecipeError(ValueError):
    """Something in a recipe is wrong; one line a problem, each with the path of the entry."""


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Bad input met inside is told with the place in the recipe."""
    try:
        yield
    except UntrustedCode as error:
        raise UntrustedCode(f"{path}.{error.path}", error.code, error.folder) from None
    except RecipeError as error:
        raise (RecipeError(f"{path}.{error}") if path.startswith("stages") else error) from error
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        told = str(error)
        inside = told.partition(":")[0].partition(".")[0] in IN_A_NET
        raise RecipeError(f"{path}{'.' if inside else ': '}{told}" if path else told) from error


def join(*path: str | int) -> str:
    """``("stages", 0, "train")`` as ``stages.0.train``; empty parts are left out."""
    return ".".join(str(part) for part in path if part != "")


Place = tuple[str | int, ...]
Owner = Callable[[Place], tuple[str, Sequence[str]]]
"""Where an unknown entry stands -> the name of what should have known it, and what that knows."""


def problems(error: ValidationError, data: Any, owner: Owner, path: str = "") -> list[str]:
    """One line for each entry that pydantic refused.

    Errors of the branches of a union become one line: what every branch expected, unless a branch got deeper into the data than the others.
    """
    found: dict[Place, list[Any]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(_place(one, data), []).append(one)
    places = [
        place
        for place in found
        if not any(len(deeper) > len(place) and deeper[: len(place)] == place for deeper in found)
    ]
    return [
        f"{join(path, *place) or 'recipe'}: {_sentence(found[place], place, owner)}"
        for place in places
    ]


def _place(one: Any, data: Any) -> Place:
    """The part of pydantic's location that exists in the data: names of union branches are no place."""
    place: list[str | int] = []
    for part in one["loc"]:
        inside = (
            part in data
            if isinstance(data, Mapping)
            else isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
        elif one["type"] != "missing" or part != one["loc"][-1]:
            continue
        place.append(part)
    return tuple(place)


def _sentence(errors: list[Any], place: Place, owner: Owner) -> str:
    kind, value = errors[0]["type"], errors[0]["input"]
    if kind == "extra_forbidden":
        return unknown(str(place[-1]), *owner(place))
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(errors[0]["ctx"]["error"])
    wanted = list(dict.fromkeys(expected for one in errors if (expected := _expected(one))))
    if not wanted:
        return f"{errors[0]['msg'][:1].lower()}{errors[0]['msg'][1:]}"
    return f"{' or '.join(wanted)} was expected, not {value!r}"


def _expected(one: Any) -> str:
    """What pydantic wanted, as a noun; empty where no user can give it (an instance of a class)."""
    kind, context = one["type"], one.get("ctx", {})
    if kind in NUMBERS:
        return "a number"
    if kind in WHOLE:
        return "a whole number"
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"{words} {context[bound]:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("too_short", "too_long"):
        return f"a list of at {'least' if kind == 'too_short' else 'most'} {context.get('min_length', context.get('max_length'))}"
    return WORDS.get(
        kind, "" if kind.startswith(("is_", "dataclass_", "needs_python")) else str(one["msg"])
    )


def unknown(option: str, owner: str, options: Sequence[str]) -> str:
    """The message about an option that ``owner`` does not have."""
    from instil.core import closest

    if not options:
        return f"{owner} has no such option; it has none"
    listed = (
        f"its options are {', '.join(options)}" if len(options) <= 8 else closest(option, options)
    )
    return f"{owner} has no such option; {listed}"
