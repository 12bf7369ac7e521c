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
from pydantic.functional_validators import AfterValidator, BeforeValidator

from instil.catalogue.signatures import (
    describe_option,
    is_net,
    option_group,
    parameters,
    plain,
    takes_net,
)
from instil.networks.factory import find_builder
from instil.recipe.errors import EntryPath, RecipeError, join, problem_lines
from instil.recipe.schedules import SCHEDULED
from instil.recipe.sections import ModelConfig

PREFIX = "option_"
"""Prefix of the fields, so that an option ``copy`` does not hide the pydantic method."""


def check(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    path: str = "",
    name: str = "",
    schedules: bool = True,
    other_keys: Iterable[str] = (),
    is_complete: bool = True,
) -> dict[str, Any]:
    """Validate options against the signature of a class or function.

    Args:
        target: class or function that takes the options.
        options: options as read from a recipe.
        path: recipe path, for messages.
        name: name of ``target`` in messages; the default is its Python name.
        schedules: whether ``{start, end, until, after}`` may stand for a float.
        other_keys: further keys of the same section, for messages.
        is_complete: whether an option without a default must be given.

    Returns:
        The given options as Python values. A network is returned as ``sections.ModelConfig``, a
        group of options as its dataclass.

    Raises:
        RecipeError: with one line per wrong option.
    """

    def owner(entry: EntryPath) -> tuple[str, list[str]]:
        if len(entry) == 1:
            return name or target.__name__, [*parameters(target), *other_keys]
        group = option_group(parameters(target)[str(entry[0])].annotation)
        keys = ModelConfig.model_fields if group is None else parameters(group)
        return join(path, *entry[:-1]), list(keys)

    def describe(entry: EntryPath) -> str:
        options = parameters(target)
        if len(entry) > 1:
            options = parameters(option_group(options[str(entry[0])].annotation) or ModelConfig)
        return describe_option(options[str(entry[-1])]) if str(entry[-1]) in options else ""

    # Through JSON, as the recipe itself, so that both have the same rules for numbers and lists.
    text = json.dumps(dict(options), default=plain)
    try:
        checked = _model(target, schedules, is_complete).model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = problem_lines(error, dict(options), owner, path, describe)
        raise RecipeError("\n".join(lines)) from None
    return {option: getattr(checked, PREFIX + option) for option in options}


@functools.cache
def _model(
    target: Callable[..., Any], schedules: bool, is_complete: bool = True
) -> type[BaseModel]:
    """Return a pydantic model with a field for each option."""
    fields: dict[str, Any] = {}
    for name, parameter in parameters(target).items():
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            annotation = Any
        group = option_group(annotation)
        if group is not None:
            annotation = _group_model(group, parameter.default, schedules)
        elif schedules and _takes_float(annotation):
            annotation = Annotated[annotation, SCHEDULED]
        else:
            annotation = _with_models(annotation)
        default = parameter.default
        if default is inspect.Parameter.empty:
            default = ... if is_complete else None
        fields[PREFIX + name] = (annotation, Field(default, alias=name))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    model: type[BaseModel] = create_model(target.__name__, __config__=config, **fields)
    return model


def _group_model(group: Any, default: Any, schedules: bool) -> Any:
    """Return an annotation that converts a section to the dataclass of a group of options."""

    def build(section: BaseModel) -> Any:
        options = {
            field.removeprefix(PREFIX): getattr(section, field)
            for field in section.model_fields_set
        }
        # Options that are left out are those of the method, not those of the dataclass.
        is_complete = default is inspect.Parameter.empty
        return group(**options) if is_complete else dataclasses.replace(default, **options)

    return Annotated[_model(group, schedules), AfterValidator(build)]


def _with_models(annotation: Any) -> Any:
    """Replace networks in an annotation by the recipe section that describes a network."""
    if not takes_net(annotation):
        return annotation
    if is_net(annotation):
        return Annotated[
            ModelConfig, BeforeValidator(_model_from_name), AfterValidator(_with_checked_options)
        ]
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        with_models: Any = (_with_models(arguments[0]), *arguments[1:])
        return Annotated[with_models]
    parts = tuple(_with_models(part) for part in arguments)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[parts]  # noqa: UP007 - the members are in a tuple
    return list[parts[0]]  # type: ignore[valid-type]


def check_network(section: Mapping[str, Any], path: str = "") -> None:
    """Validate the options of a network of this package; other models are checked when built.

    Args:
        section: section of the network, as read from a recipe.
        path: recipe path of the section, for messages.

    Raises:
        RecipeError: with one line per wrong option.
    """
    model, options = section.get("model"), section.get("options")
    if not isinstance(model, str) or not isinstance(options, Mapping):
        return  # the validation of the sections reports it
    builder = find_builder(model)
    if builder is not None:
        # The data decide some options, such as the number of classes.
        where = join(path, "options")
        check(builder, options, where, model, schedules=False, is_complete=False)


def _with_checked_options(config: ModelConfig) -> ModelConfig:
    check_network({"model": config.model, "options": config.options})
    return config


def _model_from_name(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


def _takes_float(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _takes_float(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(_takes_float(part) for part in get_args(annotation))
    return annotation is float
