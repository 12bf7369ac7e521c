"""Texts in the nested values of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def nested_texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each text in a value, and the text.

    Args:
        value: a value with mappings, lists and tuples.
        path: path of the value itself.

    Example:
        >>> list(nested_texts({"files": ["a", {"test": "b"}], "size": 3}))
        [('.files.0', 'a'), ('.files.1.test', 'b')]
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, (Mapping, list, tuple)):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in entries:
            yield from nested_texts(entry, f"{path}.{key}")
