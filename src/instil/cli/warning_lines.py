"""Warnings of this package on the terminal: one line without file and source code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@contextmanager
def short_warnings() -> Iterator[None]:
    """Show warnings of this package as ``Warning: MESSAGE``; those of others are unchanged."""
    default = warnings.formatwarning

    def line_of(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if Path(filename).is_relative_to(PACKAGE):
            return f"Warning: {message}\n"
        return default(message, category, filename, lineno, line)

    warnings.formatwarning = line_of
    try:
        yield
    finally:
        warnings.formatwarning = default
