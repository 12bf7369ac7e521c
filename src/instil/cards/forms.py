"""Form of a value, for messages about wrong types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def form_of(value: Any) -> str:
    """Return the form of a value of any type, for messages.

    Args:
        value: a class, a mapping, a tuple or list, an object with a ``shape``, or another object.

    Example:
        >>> form_of({"logits": 1}), form_of((1, 2)), form_of(int)
        ('a dict with logits', 'a tuple of 2 values', 'the class int. Create an object: int()')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}. Create an object: {value.__name__}()"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} values"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"the shape {tuple(shape)}"
