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
