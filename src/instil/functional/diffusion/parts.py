"""Construction of a part of a diffusion model from its name and options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from instil.cards import suggestion

Part = TypeVar("Part")
PartSpec = str | Mapping[str, Any]
"""Name of a part, or its options with ``type``, the name."""


def build_part(key: str, spec: PartSpec, kinds: Mapping[str, type[Part]]) -> Part:
    """Build a part.

    Args:
        key: key of the part, for messages.
        spec: name, or ``{"type": name, ...}`` with options.
        kinds: classes by name.

    Returns:
        The part.

    Raises:
        ValueError: for an unknown name or option.
    """
    options = {"type": spec} if isinstance(spec, str) else dict(spec)
    name = str(options.pop("type", ""))
    if name not in kinds:
        raise ValueError(
            f"{key}: unknown type '{name}'. Expected one of {', '.join(kinds)}."
            f"{suggestion(name, kinds, is_listed=True)}"
        )
    parameters = [key for key in inspect.signature(kinds[name]).parameters if key != "self"]
    for option in options:
        if option not in parameters:
            expected = f"one of {', '.join(parameters)}" if parameters else "none"
            raise ValueError(
                f"{key}.{option}: {name} has no such option. Expected {expected}."
                f"{suggestion(option, parameters, is_listed=True)}"
            )
    return kinds[name](**options)


def require_positive(key: str, value: float) -> None:
    """Check an option of a part.

    Args:
        key: name of the option.
        value: its value.

    Raises:
        ValueError: if it is not above 0.
    """
    # The comparison is negated, so that NaN is refused too.
    if not value > 0:
        raise ValueError(f"{key}: Expected a number above 0, got {value}")
