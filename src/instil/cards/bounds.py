"""Bounds of numeric options, from the annotations of a constructor."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

from instil.cards.schedule import Schedule

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
        values = inspect.signature(constructor).bind(*arguments, **options).arguments
    except TypeError:
        # The call of the constructor raises it.
        return
    for option, checks in _bounds(constructor).items():
        for value in _numbers(values.get(option)):
            for words, holds in checks:
                if not holds(value):
                    raise ValueError(f"{name}.{option}: Expected a number {words}, got {value}")


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
        metadata = annotation.__metadata__ if typing.get_origin(annotation) is Annotated else ()
        checks = [_check(entry) for entry in metadata]
        bounds[option] = [check for check in checks if check is not None]
    return bounds


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
