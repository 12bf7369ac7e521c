"""Options of methods and functions: validated and converted to Python values."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.functional_validators import BeforeValidator, WrapValidator

from instil.catalogue.signatures import is_net, parameters, plain, takes_net
from instil.core import Schedule
from instil.recipe.errors import Place, RecipeError, join, problems


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

    if not takes_net(annotation):
        return annotation
    if is_net(annotation):
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
