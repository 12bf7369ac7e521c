"""Options of methods and functions, read from their signatures."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from torch import nn
from typing_extensions import Doc

from instil.core import Schedule, Scheme

STRUCTURE = (
    "self",
    "student",
    "teacher",
    "objectives",
    "params",
    "observe",
    "member_class_names",
    "class_names",
    "teacher_tokenizer",
    "task_name",
)
"""Parameters that a recipe fills from its other sections."""

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
BOUND_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function that a recipe may set.

    A parameter of type ``Path`` is the recipe's folder and is left out. Networks are options of
    schemes only.
    """
    accepts_nets = inspect.isclass(target) and issubclass(target, Scheme)
    options = {}
    # Annotations are postponed (text), and option types are read from them.
    for name, parameter in inspect.signature(target, eval_str=True).parameters.items():
        is_structure = name in STRUCTURE or parameter.annotation is Path
        if parameter.kind in VARIADIC or is_structure:
            continue
        if accepts_nets or not takes_net(parameter.annotation):
            options[name] = parameter
    return options


def is_net(annotation: Any) -> bool:
    """Whether an annotation is a class of networks."""
    return inspect.isclass(annotation) and issubclass(annotation, nn.Module)


def takes_net(annotation: Any) -> bool:
    """Whether an annotation is a class of networks, or a container or union with one."""
    if is_net(annotation):
        return True
    parts = (part for part in get_args(annotation) if not isinstance(part, (str, list)))
    return any(takes_net(part) for part in parts)


def option_group(annotation: Any) -> Any:
    """Return the dataclass in an annotation whose fields are options, such as ``Sampling``.

    None for other annotations. A ``Schedule`` is a value, not a group of options.
    """
    if get_origin(annotation) is Annotated:
        return option_group(get_args(annotation)[0])
    is_group = dataclasses.is_dataclass(annotation) and annotation is not Schedule
    return annotation if is_group else None


def plain(value: Any) -> Any:
    """Convert a value that JSON cannot hold to data or text."""
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_record else str(value)


def with_defaults(target: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the defaults of those that are left out, as plain data.

    Args:
        target: class or function that takes the options.
        options: the options that a recipe sets, as plain data.
    """
    complete = {}
    for name, parameter in parameters(target).items():
        if parameter.default is not inspect.Parameter.empty:
            complete[name] = _json_default(parameter.default)
        if option_group(parameter.annotation) and isinstance(options.get(name), Mapping):
            complete[name] = {**complete.get(name, {}), **options[name]}
        elif name in options:
            complete[name] = options[name]
    return complete | {name: value for name, value in options.items() if name not in complete}


def described(target: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return name, type, default and description of each option.

    The description is the text of the ``Doc`` in the option's annotation. The options of a group
    have names with a dot, such as ``sampling.temperature``.
    """
    options = []
    for name, parameter in parameters(target).items():
        group = option_group(parameter.annotation)
        if group is not None:
            options += _described_group(name, group, parameter.default)
            continue
        options.append(
            {
                "name": name,
                "type": type_text(parameter.annotation),
                "default": _json_default(parameter.default),
                "description": _documented(parameter.annotation),
            }
        )
    return options


def describe_option(parameter: inspect.Parameter) -> str:
    """Return the type of an option and the text of its ``Doc``, such as ``str: file``."""
    description = _documented(parameter.annotation).replace("``", "")
    return ": ".join(part for part in (type_text(parameter.annotation), description) if part)


def _described_group(name: str, group: type[Any], default: Any) -> list[dict[str, Any]]:
    """Return the options of a group, whose defaults are the fields of ``default``."""
    options = described(group)
    for option in options:
        if isinstance(default, group):
            option["default"] = _json_default(getattr(default, option["name"]))
        option["name"] = f"{name}.{option['name']}"
    return options


def _documented(annotation: Any) -> str:
    """Return the text of the ``Doc`` in an annotation, also inside a union; empty without one."""
    if get_origin(annotation) is Annotated:
        for part in get_args(annotation)[1:]:
            if isinstance(part, Doc):
                return part.documentation
    if get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        texts = (_documented(part) for part in get_args(annotation))
        return next((text for text in texts if text), "")
    return ""


def _json_default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return None
    return json.loads(json.dumps(value, default=plain))


def type_text(annotation: Any) -> str:
    """Return an annotation as text for readers, such as ``float > 0`` or ``int | null``."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return "any"
    if annotation is None or annotation is type(None):
        return "null"
    if is_net(annotation):
        return "network"
    origin = get_origin(annotation)
    parts = get_args(annotation)
    if origin is Annotated:
        return f"{type_text(parts[0])} {' and '.join(_bounds(parts[1:]))}".rstrip()
    if origin is Literal:
        return " | ".join(repr(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(part) for part in parts if part is not Schedule)
    if origin is not None and inspect.isclass(origin):
        names = ["..." if part is Ellipsis else type_text(part) for part in parts]
        return f"{origin.__name__}[{', '.join(names)}]"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: tuple[Any, ...]) -> list[str]:
    texts = []
    for bound in metadata:
        for name, sign in BOUND_SIGNS.items():
            if hasattr(bound, name):
                texts.append(f"{sign} {getattr(bound, name):g}")
    return texts
