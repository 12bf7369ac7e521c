"""Errors for options that the builder of a model does not have."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from instil.cards.closest import unknown_option

UNEXPECTED = re.compile(
    r"(?P<owner>[\w.<>]+)\(\) got an unexpected keyword argument '(?P<name>\w+)'"
)
"""Message of Python for an argument that a function does not have."""


def check_options(spec: str, options: Iterable[str], names: Collection[str]) -> None:
    """Compare the options of a model with those that its builder has.

    Args:
        spec: model as the recipe names it, for the message.
        options: names of the options that a recipe sets.
        names: names of the options of the builder.

    Raises:
        ValueError: for an unknown option, with the closest one.

    Example:
        >>> check_options("cnn", ["widht"], ["width", "depth"])
        Traceback (most recent call last):
        ValueError: options.widht: unknown option. cnn has width, depth. Did you mean width?
    """
    for option in options:
        if option not in names:
            raise ValueError(f"options.{option}: {unknown_option(option, spec, names)}")


def refused_option(
    error: Exception, spec: str, options: Mapping[str, Any], names: Sequence[str] = ()
) -> str:
    """Return the message for an option that a function of a library refused.

    Args:
        error: error of the library.
        spec: model as the recipe names it.
        options: options that the recipe sets. They may contain mappings of further options.
        names: names of the options of the model. Empty: the parameters of the function.

    Returns:
        The message with the options of the function; empty for any other error.
    """
    refusal = UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    path = "" if refusal is None else _path(refusal["name"], options)
    if refusal is None or not path:
        return ""
    is_inner = path != refusal["name"]
    owner = path.rpartition(".")[0] if is_inner else spec
    if is_inner or not names:
        names = _parameters(error, refusal["owner"])
    if not names:
        return f"options.{path}: unknown option of {owner}"
    return f"options.{path}: {unknown_option(refusal['name'], owner, names)}"


def _path(name: str, options: Mapping[str, Any]) -> str:
    """Return the path of an option, such as ``vision_cfg.width``; empty if it is not set."""
    if name in options:
        return name
    for key, value in options.items():
        inner = _path(name, value) if isinstance(value, Mapping) else ""
        if inner:
            return f"{key}.{inner}"
    return ""


def _parameters(error: Exception, owner: str) -> list[str]:
    """Return the parameters of the function that raised an error; empty if it is not found.

    A function that refuses an argument is not entered, so it is searched among the variables of
    its callers.
    """
    qualified_name = owner.removesuffix(".__init__")
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if callable(value) and getattr(value, "__qualname__", "") == qualified_name:
                return option_names(value)
    return []


def option_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that a function or class declares."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind not in variadic]
