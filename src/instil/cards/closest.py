"""Suggestions for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 20
"""Longest list of names that an error message shows in full."""


def suggestion(name: str, names: Iterable[str], is_listed: bool = False) -> str:
    """Return the end of an error message about an unknown name, with a leading space.

    Args:
        name: the unknown name.
        names: the valid names.
        is_listed: whether the message already has the valid names.

    Returns:
        The closest names; if none is close, all names of a short list. Empty for a long list, and
        for one that the message has.

    Example:
        >>> suggestion("alfa", ["alpha", "beta"])
        ' Did you mean alpha?'
        >>> suggestion("zzz", ["alpha", "beta"])
        ' Expected one of alpha, beta.'
    """
    options = list(names)
    close = difflib.get_close_matches(name, options, 3, 0.4)
    # Names of methods are in lower case, those of their classes are not.
    close = close or difflib.get_close_matches(name.lower(), options, 3, 0.4)
    if close:
        return f" Did you mean {_alternatives(close)}?"
    if not is_listed and 0 < len(options) <= MAX_LISTED:
        return f" Expected one of {', '.join(options)}."
    return ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``" Did you mean alpha?"`` for the closest name, empty if none is close."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f" Did you mean {close[0]}?" if close else ""


def unknown_option(option: str, owner: str, options: Iterable[str]) -> str:
    """Return the message about an unknown option, after the path of the option.

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
    return f"unknown option. {owner} has {listed}.{did_you_mean(option, names)}"


def _alternatives(names: list[str]) -> str:
    """Join names with commas, and the last one with "or"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
