"""Frontier of quality against cost, its hypervolume, and the order in which students pass on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SIZE_TOLERANCE = 1e-3
"""Share of a file by which another one is larger and still of the same size: names and the layout
of a file change its bytes, too."""


def comparable_sizes(sizes: Mapping[str, float]) -> dict[str, float]:
    """Return sizes in which files that differ by at most ``SIZE_TOLERANCE`` are equal.

    Args:
        sizes: bytes by name.

    Returns:
        Bytes of the smallest file of the same size by name.

    Example:
        >>> comparable_sizes({"a": 13802.0, "b": 13800.0, "c": 15000.0})
        {'b': 13800.0, 'a': 13800.0, 'c': 15000.0}
    """
    comparable: dict[str, float] = {}
    smallest = 0.0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        if sizes[name] > smallest * (1 + SIZE_TOLERANCE):
            smallest = sizes[name]
        comparable[name] = smallest
    return comparable


def frontier(qualities: Mapping[str, float], costs: Mapping[str, float]) -> list[str]:
    """Return the students that no other student beats in both quality and cost.

    Args:
        qualities: quality by name; higher is better.
        costs: cost by name; lower is better.

    Returns:
        Names, the cheapest first. Of equal students the first one stays.

    Example:
        >>> frontier({"a": 0.8, "b": 0.9, "c": 0.85}, {"a": 1.0, "b": 2.0, "c": 3.0})
        ['a', 'b']
    """
    names: list[str] = []
    for name in sorted(qualities, key=lambda name: (costs[name], -qualities[name])):
        if not names or qualities[name] > qualities[names[-1]]:
            names.append(name)
    return names


def order_by_front(qualities: Mapping[str, float], costs: Mapping[str, float]) -> list[str]:
    """Return all students, those of the frontier first, then the frontier of the rest, and so on.

    Each frontier begins with its best student: the smallest one that keeps a share of a teacher's
    quality is among the better ones. Students without a quality (minus infinity) are last.

    Args:
        qualities: quality by name; higher is better.
        costs: cost by name; lower is better.

    Example:
        >>> order_by_front({"a": 0.8, "b": 0.9, "c": 0.85}, {"a": 1.0, "b": 2.0, "c": 3.0})
        ['b', 'a', 'c']
    """
    left = {name: quality for name, quality in qualities.items() if quality > -math.inf}
    ordered: list[str] = []
    while left:
        front = frontier(left, costs)
        ordered += reversed(front)
        for name in front:
            del left[name]
    return ordered + [name for name in qualities if name not in ordered]


def hypervolume(
    names: Sequence[str],
    qualities: Mapping[str, float],
    costs: Mapping[str, float],
    largest_cost: float,
) -> float:
    """Compute the area below a frontier, as a share of the costs up to ``largest_cost``.

    It is the quality of the most expensive student of the frontier within a cost limit, averaged
    over all limits from 0 to ``largest_cost``. The quality is 0 where no student is within the
    limit. For the frontier of these qualities, this is the hypervolume of Zitzler & Thiele 1999
    with the reference point of quality 0 and cost ``largest_cost``.

    Args:
        names: students of the frontier, the cheapest first. Other data than those of
            ``qualities`` may have chosen them.
        qualities: quality by name, at least 0; higher is better.
        costs: cost by name; lower is better.
        largest_cost: cost of the reference point.

    Example:
        >>> hypervolume(["a", "b"], {"a": 0.5, "b": 1.0}, {"a": 1.0, "b": 2.0}, 4.0)
        0.625
    """
    area = 0.0
    ends = [*(costs[name] for name in names[1:]), largest_cost]
    for name, end in zip(names, ends, strict=True):
        width = min(end, largest_cost) - costs[name]
        area += max(0.0, width) * qualities[name]
    return area / largest_cost
