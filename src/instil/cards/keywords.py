"""Errors for misspelled keyword arguments of classes with options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from instil.cards.bounds import require_in_bounds
from instil.cards.closest import unknown_option
from instil.cards.removed import reject_removed


class ClearKeywords:
    """Base class whose subclasses name the closest option if they get an unknown keyword argument.

    A number outside of the bounds of its annotation, such as ``Positive``, is an error too. The
    check of keywords runs only after a constructor has failed. Signatures and annotations stay
    those of the class.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reject_removed(cls)
        if "__init__" in vars(cls):
            cls.__init__ = _with_clear_error(cls.__init__)  # type: ignore[method-assign]


def _with_clear_error(constructor: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(constructor)
    def construct(self: Any, *arguments: Any, **options: Any) -> None:
        require_in_bounds(type(self).__name__, constructor, (self, *arguments), options)
        try:
            constructor(self, *arguments, **options)
        except TypeError as error:
            # Constructors call those of their base classes; only the outermost one explains.
            is_outermost = getattr(type(self), "__init__", None) is construct
            message = _explanation(type(self).__name__, constructor, options)
            if not is_outermost or message is None:
                raise
            raise TypeError(message) from error

    return construct


def _explanation(name: str, constructor: Callable[..., None], options: Iterable[str]) -> str | None:
    """Message about the first keyword that the constructor does not have, None if it has all."""
    _, *parameters = inspect.signature(constructor).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    unknown = [option for option in options if option not in names]
    if not unknown:
        return None
    return f"{name}.{unknown[0]}: {unknown_option(unknown[0], name, names)}"
