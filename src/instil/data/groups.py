"""Samples that belong together, such as the objects of one picture, in one split."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def whole_groups(order: Sequence[int], group: Sequence[Hashable], count: int) -> list[int]:
    """Return about ``count`` rows, with all rows of their groups.

    Groups follow one another in the order of their first rows. Those that are too large for the
    rest of ``count`` are left out. If all are too large, the smallest group is returned, or the
    first rows if it has twice that number or all rows.

    Args:
        order: rows to choose from, at least one.
        group: group of each row, such as a picture or a text.
        count: number of rows.

    Example:
        >>> whole_groups([3, 1, 0, 2], ["a", "b", "c", "b"], 3)
        [3, 1, 0]
    """
    members: dict[Hashable, list[int]] = {}
    for row in order:
        members.setdefault(group[row], []).append(row)
    chosen: list[int] = []
    for rows in members.values():
        if len(chosen) + len(rows) <= count:
            chosen += rows
    if chosen:
        return chosen
    smallest = min(members.values(), key=len)
    return smallest if len(smallest) < min(2 * count, len(order)) else list(order[:count])
