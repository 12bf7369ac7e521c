"""Rows of conversations that are read and encoded together."""

from __future__ import annotations

from typing import Any, NamedTuple


class Chunk(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        name: name of the file, for messages.
        unit: ``line`` or ``row``, for messages.
        first: number of the first row.
        rows: rows as dicts, or as lines of JSON; empty lines are skipped.
        folder: folder that paths of images start from; empty for the working directory.
    """

    name: str
    unit: str
    first: int
    rows: list[Any]
    folder: str = ""
