"""Bounds of numeric options, from the annotations of a constructor or function."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ParamSpec, TypeVar

from annotated_types import Ge, Gt, Le, Lt

from instil.cards.schedule import Schedule

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Check = tuple[str, Callable[[Any], bool]]
"""Bound in words, and whether a number fulfils it."""


def require_in_bounds(
    name: str,
    constructor: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any],
) -> None:
    """Check numbers and schedules against the annotations of a constructor.

    Args:
        name: name of the class, for the message.
        constructor: function with annotations such as ``Positive``.
        arguments: positional arguments.
        options: keyword arguments.

    Raises:
        ValueError: for a number outside of the bounds of its annotation.
    """
    try:
        values = inspect.signature(constructor).bind_partial(*arguments, **options).arguments
    except TypeError:
        # The call of the constructor raises it.
        return
    for option, checks in _bounds(constructor).items():
        for value in _numbers(values.get(option)):
            _require(f"{name}.{option}", value, checks)


def check_bounds(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Check the numbers that a function is called with against the bounds of its annotations.

    A decorator. Tensors are not checked, because a comparison would wait for their device.

    Args:
        function: function with annotations such as ``Positive``.

    Returns:
        The function with the check.

    Raises:
        ValueError: in a call with a number outside of its bounds, or with a text or a schedule,
            whose value at a step only an objective reads.
    """
    # Read once: a call has no signature to bind, and ``torch.compile`` can trace it.
    bounds = _bounds(function)
    names = enumerate(inspect.signature(function).parameters)
    bounded = [(index, name, bounds[name]) for index, name in names if bounds.get(name)]

    def checked(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        for index, name, checks in bounded:
            value = arguments[index] if index < len(arguments) else options.get(name)
            if isinstance(value, (int, float)):
                _require(f"{function.__name__}.{name}", value, checks)
            elif isinstance(value, (str, Schedule)):
                expected = f"Expected a number {checks[0][0]}, got {value!r}"
                raise ValueError(f"{function.__name__}.{name}: {expected}")
        return function(*arguments, **options)

    # ``torch.compile`` limits the recompilations of a code object, so each function has its own.
    checked.__code__ = checked.__code__.replace(co_name=function.__name__)
    return functools.update_wrapper(checked, function)


def _require(option: str, value: float, checks: list[Check]) -> None:
    for words, holds in checks:
        if not holds(value):
            raise ValueError(f"{option}: Expected a number {words}, got {value}")


@functools.cache
def _bounds(constructor: Callable[..., Any]) -> dict[str, list[Check]]:
    """Return the bounds of each option."""
    try:
        annotations = typing.get_type_hints(constructor, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError):
        # Annotations of a user's module may have names that exist for type checkers only.
        return {}
    bounds: dict[str, list[Check]] = {}
    for option, annotation in annotations.items():
        checks = [_check(entry) for entry in _metadata(annotation)]
        bounds[option] = [check for check in checks if check is not None]
    return bounds


def _metadata(annotation: Any) -> tuple[Any, ...]:
    """Return the metadata of an annotation, also of one that allows None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _metadata(members[0]) if len(members) == 1 else ()
    is_annotated = typing.get_origin(annotation) is Annotated
    return annotation.__metadata__ if is_annotated else ()


def _check(entry: Any) -> Check | None:
    # The comparisons are written so that NaN is outside of every bound.
    if isinstance(entry, Gt):
        return f"above {entry.gt}", lambda value: value > entry.gt
    if isinstance(entry, Ge):
        return f"of at least {entry.ge}", lambda value: value >= entry.ge
    if isinstance(entry, Lt):
        return f"below {entry.lt}", lambda value: value < entry.lt
    if isinstance(entry, Le):
        return f"of at most {entry.le}", lambda value: value <= entry.le
    return None


def _numbers(value: Any) -> Iterator[float]:
    """Yield a number, or the ends of a schedule; nothing for another value."""
    if isinstance(value, Schedule):
        yield from (value.start, value.end)
    elif isinstance(value, (int, float)):
        yield value
