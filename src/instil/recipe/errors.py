"""Error messages for recipes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from instil.cards.closest import unknown_option
from instil.catalogue.user_code import UntrustedCode

NUMBER_ERRORS = {"float_type", "float_parsing", "decimal_type"}
INTEGER_ERRORS = {"int_type", "int_parsing", "int_from_float", "int_parsing_size"}
EXPECTED = {
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
NET_KEYS = (
    "taps",
    "changes",
    "freeze",
    "reset",
    "replace",
    "reads",
    "input",
    "cpu_offload",
    "class_subset",
    "test_classes",
    "test_stages",
    "num_labeled",
    "model",
    "options",
    "optimizer",
)
"""Keys whose errors are raised by functions that do not know the section; the error context adds
``student.``, ``teacher.``, ``data.`` or ``train.``."""


class RecipeError(ValueError):
    """Error in a recipe: one line per problem, each with the path of the entry."""


@contextlib.contextmanager
def error_context(path: str) -> Iterator[None]:
    """Add a recipe path to errors of bad input that are raised inside.

    Raises:
        RecipeError: for a ValueError, a missing file or a missing package.
        UntrustedCode: for code that is not trusted.
    """
    try:
        yield
    except UntrustedCode as error:
        # Before ValueError, its base class, so that the caller can still recognize it.
        raise UntrustedCode(f"{path}.{error.path}", error.code, error.folder) from None
    except RecipeError as error:
        # A RecipeError has its path already; only the index of the stage is missing.
        raise (RecipeError(f"{path}.{error}") if path.startswith("stages") else error) from error
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        message = str(error)
        first_key = message.partition(":")[0].partition(".")[0]
        # A message may have the path already.
        if path and not message.startswith((f"{path}.", f"{path}:")):
            message = f"{path}{'.' if first_key in NET_KEYS else ': '}{message}"
        raise RecipeError(message) from error


def join(*path: str | int) -> str:
    """Join the parts of a recipe path, such as ``stages.0.train``; empty parts are left out."""
    return ".".join(str(part) for part in path if part != "")


EntryPath = tuple[str | int, ...]
Owner = Callable[[EntryPath], tuple[str, Sequence[str]]]
"""Function from the path of an unknown entry to the name of its section and the known keys."""


def problem_lines(
    error: ValidationError,
    data: Any,
    owner: Owner,
    path: str = "",
    describe: Callable[[EntryPath], str] = lambda entry: "",
) -> list[str]:
    """Return one line for each entry that pydantic refused.

    Errors of the branches of a union become one line, unless one branch got deeper into the data.

    Args:
        error: error of pydantic.
        data: validated data.
        owner: name and keys of the section of an unknown entry.
        path: recipe path of the data.
        describe: function from the path of a missing entry to what it is; empty for unknown.
    """
    errors: dict[EntryPath, list[Any]] = {}
    for detail in error.errors(include_url=False):
        # A union reports one error per member, all for the same entry of the recipe.
        errors.setdefault(_path_in_data(detail, data), []).append(detail)
    lines = []
    for entry_path, details in errors.items():
        # Only the innermost entries: the outer ones fail because of them.
        if any(_is_inside(other, entry_path) for other in errors):
            continue
        inner = details[0].get("ctx", {}).get("error")
        if isinstance(inner, RecipeError):
            lines += [join(path, *entry_path, line) for line in str(inner).splitlines()]
        elif details[0]["type"] == "missing":
            expected = describe(entry_path)
            sentence = f"missing. Expected {expected}" if expected else "missing"
            lines.append(f"{join(path, *entry_path)}: {sentence}")
        else:
            sentence = _sentence(details, entry_path, owner)
            lines.append(f"{join(path, *entry_path) or 'recipe'}: {sentence}")
    return lines


def _is_inside(entry_path: EntryPath, outer: EntryPath) -> bool:
    return len(entry_path) > len(outer) and entry_path[: len(outer)] == outer


def _path_in_data(detail: Any, data: Any) -> EntryPath:
    """Return the parts of pydantic's location that exist in the data, without union branches."""
    parts: list[str | int] = []
    for part in detail["loc"]:
        if _has_entry(data, part):
            data = data[part]
        elif detail["type"] != "missing" or part != detail["loc"][-1]:
            continue
        parts.append(part)
    return tuple(parts)


def _has_entry(data: Any, key: str | int) -> bool:
    if isinstance(data, Mapping):
        return key in data
    return isinstance(data, (list, tuple)) and isinstance(key, int) and key < len(data)


def _sentence(details: list[Any], entry_path: EntryPath, owner: Owner) -> str:
    """Return the message for one entry."""
    kind = details[0]["type"]
    if kind == "extra_forbidden":
        return unknown_option(str(entry_path[-1]), *owner(entry_path))
    if kind == "value_error":
        return str(details[0]["ctx"]["error"])
    expected = [_expected(detail) for detail in details]
    nouns = [noun for noun in dict.fromkeys(expected) if noun]
    if not nouns:
        message = str(details[0]["msg"])
        return f"{message[:1].lower()}{message[1:]}"
    return f"{' or '.join(nouns)} was expected, not {details[0]['input']!r}"


def _expected(detail: Any) -> str:
    """Return the expected type as a noun; empty for a class, which no recipe can contain."""
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind in NUMBER_ERRORS:
        return "a number"
    if kind in INTEGER_ERRORS:
        return "a whole number"
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"{words} {context[bound]:g}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    if kind == "too_long":
        return f"a list of at most {context['max_length']}"
    if kind.startswith(("is_", "dataclass_", "needs_python")):
        return ""
    return EXPECTED.get(kind, str(detail["msg"]))
