"""Suggestions for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 20
"""Longest list of names that an error message shows in full."""


def closest(name: str, names: Iterable[str]) -> str:
    """End of an error message about an unknown name: the closest names, or all of a short list."""
    options = list(names)
    close = difflib.get_close_matches(name, options, 3, 0.4)
    if close:
        return f"closest: {', '.join(close)}"
    if 0 < len(options) <= MAX_LISTED:
        return f"known: {', '.join(options)}"
    return "no name is close to it"


def unknown_option(option: str, owner: str, options: Iterable[str]) -> str:
    """Message about an unknown option, after the path of the option.

    Args:
        option: the unknown option.
        owner: name of the method or section.
        options: options of the owner.

    Example:
        >>> unknown_option("alfa", "DKD", ["alpha", "beta", "temperature"])
        'unknown option. DKD has alpha, beta, temperature. Did you mean alpha?'
    """
    names = list(options)
    listed = ", ".join(names) if 0 < len(names) <= MAX_LISTED else f"{len(names) or 'no'} options"
    return f"unknown option. {owner} has {listed}.{suggestion(option, names)}"


def suggestion(name: str, names: Iterable[str]) -> str:
    """`` Did you mean alpha?`` for the closest name, empty if none is close."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" Did you mean {close[0]}?" if close else ""
