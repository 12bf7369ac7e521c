"""Numbers in tables, which may be written as texts."""

from __future__ import annotations

from typing import Any


def as_number(value: Any) -> float:
    """Return a value of a table as a number.

    Args:
        value: number, or text.

    Raises:
        ValueError: for other texts, such as ``1_2``.
        TypeError: for other values, such as dates.
    """
    # Python reads 1_2 as 12, but in a table it is a name.
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"'{value}' has an underscore. Expected a number")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether ``as_number`` can read a value.

    Args:
        value: any value of a table.

    Example:
        >>> is_number("1e3"), is_number("1_2"), is_number(None)
        (True, False, False)
    """
    try:
        as_number(value)
    except (TypeError, ValueError):
        return False
    return True
