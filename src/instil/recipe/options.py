"""Options of methods and functions: read off the signature and the docstring, checked, and made into Python values."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.functional_validators import BeforeValidator, WrapValidator
from torch import nn
from typing_extensions import Doc

from instil.core import Schedule, Scheme
from instil.recipe.errors import Place, RecipeError, join, problems

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


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function that a recipe may set: no ``Path``, which is the recipe's folder, and networks only of a scheme."""
    found = inspect.signature(target, eval_str=True).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    nets = inspect.isclass(target) and issubclass(target, Scheme)
    mine = (
        p
        for p in found
        if p.kind not in variadic and p.name not in STRUCTURE and p.annotation is not Path
    )
    return {p.name: p for p in mine if nets or not _takes_net(p.annotation)}


def _is_net(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, nn.Module)


def _takes_net(annotation: Any) -> bool:
    return _is_net(annotation) or any(
        _takes_net(part) for part in get_args(annotation) if not isinstance(part, (str, list))
    )


def check(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    path: str = "",
    name: str = "",
    schedules: bool = True,
    beside: Iterable[str] = (),
) -> dict[str, Any]:
    """The options as the Python values that ``target`` takes; where it takes a float, ``{start, end, until, after}`` is a ``Schedule``.

    A network comes back as a ``sections.Model``. Only what is given comes back, so that defaults stay with the class. ``name`` is what messages
    call ``target``, ``beside`` what may stand in the same section. Raises RecipeError with one line for each wrong option.
    """
    known = [*parameters(target), *beside]

    def owner(place: Place) -> tuple[str, list[str]]:
        from instil.recipe.sections import Model

        return (
            (name or target.__name__, known)
            if len(place) == 1
            else (join(path, *place[:-1]), list(Model.model_fields))
        )

    try:
        checked = _model(target, schedules).model_validate_json(
            json.dumps(dict(options), default=plain), strict=True
        )
    except ValidationError as error:
        raise RecipeError("\n".join(problems(error, dict(options), owner, path))) from None
    return {option: getattr(checked, f"option_{option}") for option in options}


def plain(value: Any) -> Any:
    """What JSON cannot hold, as data or text."""
    return dataclasses.asdict(value) if isinstance(value, Schedule) else str(value)


@functools.cache
def _model(target: Callable[..., Any], schedules: bool) -> type[BaseModel]:
    """A pydantic model with a field for each option; the prefix keeps options such as ``copy`` apart from pydantic's own attributes."""
    fields: dict[str, Any] = {}
    for name, parameter in parameters(target).items():
        annotation = (
            Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
        )
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        wanted = (
            Annotated[annotation, SCHEDULED]
            if schedules and _takes_float(annotation)
            else _with_models(annotation)
        )
        fields[f"option_{name}"] = (wanted, Field(default, alias=name))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    model: type[BaseModel] = create_model(target.__name__, __config__=config, **fields)
    return model


def _with_models(annotation: Any) -> Any:
    """``annotation`` with the section that describes a network in the place of networks."""
    from instil.recipe.sections import Model

    if not _takes_net(annotation):
        return annotation
    if _is_net(annotation):
        return Annotated[
            Model,
            BeforeValidator(lambda given: {"model": given} if isinstance(given, str) else given),
        ]
    parts = tuple(_with_models(part) for part in get_args(annotation))
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[parts]  # noqa: UP007 - of a tuple
    return list[parts[0]]  # type: ignore[valid-type]


def _takes_float(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _takes_float(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_takes_float(part) for part in get_args(annotation))
    return annotation is float


def _number_or_schedule(value: Any, number: Callable[[Any], Any]) -> Any:
    if isinstance(value, Schedule):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        return number(value)
    if not {"start", "end"} <= set(value) <= {"start", "end", "until", "after"}:
        raise ValueError(
            f"a schedule has start, end and, if you like, after and until, not {', '.join(map(str, value)) or 'nothing'}"
        )
    shares = {key: value[key] for key in ("until", "after") if key in value}
    for key, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)):
            raise ValueError(
                f"{key} of a schedule is a share of the training between 0 and 1, not {share!r}"
            )
    return Schedule(number(value["start"]), number(value["end"]), **shares)


SCHEDULED = WrapValidator(_number_or_schedule)
"""Beside a type that takes a float: lets a schedule with both ends of that type stand in its place."""


def defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of the options that have one, as plain data."""
    return {
        name: _default(p.default)
        for name, p in parameters(target).items()
        if p.default is not inspect.Parameter.empty
    }


def described(target: Callable[..., Any]) -> list[dict[str, Any]]:
    """Name, type, default and description of each option; the description is the docstring's sentence that names ``option``."""
    return [
        {
            "name": name,
            "type": type_text(p.annotation),
            "default": _default(p.default),
            "description": _documented(p.annotation) or _text(name, target),
        }
        for name, p in parameters(target).items()
    ]


def _documented(annotation: Any) -> str:
    """Text of the ``Doc`` in an annotation; empty where it has none."""
    parts = get_args(annotation) if get_origin(annotation) is Annotated else ()
    return next((part.documentation for part in parts if isinstance(part, Doc)), "")


def _default(value: Any) -> Any:
    """A default as JSON can hold it; None where there is none."""
    if value is inspect.Parameter.empty:
        return None
    if isinstance(value, Schedule):
        return plain(value)
    return json.loads(json.dumps(value, default=str))


def _text(option: str, target: Callable[..., Any]) -> str:
    """The sentence about ``option`` in the docstring of the class, of the loss function beside it, or of a class that it is built on."""
    module = sys.modules.get(target.__module__)
    losses = [
        value
        for name, value in vars(module).items()
        if name.endswith("_loss")
        and inspect.isfunction(value)
        and value.__module__ == target.__module__
    ]
    for source in (target, *losses, *getattr(target, "__mro__", ())):
        for paragraph in inspect.cleandoc(_own_doc(source)).split("\n\n"):
            for sentence in re.split(r"(?<=[.;])\s+(?=[A-Z`])", " ".join(paragraph.split())):
                if f"``{option}``" in sentence:
                    return re.sub(rf"^``{option}``:\s*", "", sentence).rstrip(".;")
    return ""


def _own_doc(source: Any) -> str:
    """The docstring of a function, or of a class without those that it inherits."""
    text = vars(source).get("__doc__") if inspect.isclass(source) else source.__doc__
    return text or ""


def type_text(annotation: Any) -> str:
    """An annotation as a reader would write it."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return "any"
    if annotation is None or annotation is type(None):
        return "null"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(m, key):g}"
            for m in parts[1:]
            for key, sign in _SIGNS.items()
            if hasattr(m, key)
        ]
        return " ".join([type_text(parts[0]), *bounds])
    if _is_net(annotation):
        return "network"
    if origin is Literal:
        return " | ".join(repr(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(part) for part in parts if part is not Schedule)
    if origin is not None and inspect.isclass(origin):
        return f"{origin.__name__}[{', '.join('...' if part is Ellipsis else type_text(part) for part in parts)}]"
    return getattr(annotation, "__name__", str(annotation))


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
