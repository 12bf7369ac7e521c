"""Pairs of student levels and teacher levels of feature pyramids."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from instil.core import Outputs
from instil.functional.feature_maps import as_map, grid_of

Pairs = Literal["auto"] | list[list[int]]
"""``auto``, or [[student stage, teacher stage], ...], stages counted from 0, shallow to deep."""


def feature_levels(outputs: Outputs) -> tuple[Tensor, ...]:
    """Levels of the role ``features``, shallow to deep; a single tensor is one level."""
    features = outputs["features"]
    return (features,) if isinstance(features, Tensor) else tuple(features)


def match_levels(
    student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: Pairs = "auto"
) -> list[tuple[int, int]]:
    """Pair the levels of student and teacher.

    Args:
        student: student levels, shallow to deep.
        teacher: teacher levels, shallow to deep.
        pairs: pairs of indices, or ``"auto"``. Auto keeps the deepest level of each spatial size
            (all levels of a network with one size, such as a ViT). It then gives every level of
            the side with fewer levels a partner of its own, in order, with the smallest total
            difference in size (in octaves) and relative depth.

    Raises:
        ValueError: if a pair is not two numbers or names a level that does not exist.
    """
    if pairs == "auto":
        return _match_automatically(student, teacher)
    return checked_pairs(pairs, len(student), len(teacher))


def checked_pairs(
    pairs: str | list[list[int]],
    student: int,
    teacher: int,
    option: str = "pairs",
    unit: str = "stage",
    named: str = "'auto'",
    first: int = 0,
) -> list[tuple[int, int]]:
    """Check the pairs of an option that lists them.

    Args:
        pairs: value of the option.
        student: number of levels, or layers, of the student.
        teacher: number of levels, or layers, of the teacher.
        option: name of the option, for the message.
        unit: ``"stage"`` or ``"layer"``, for the message.
        named: other values of the option, for the message.
        first: smallest index.

    Raises:
        ValueError: if a pair is not two numbers or names a level that does not exist.
    """
    if isinstance(pairs, str) or not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{option}: {pairs!r} is neither {named} nor a list of [student {unit}, teacher {unit}]"
        )
    for pair in pairs:
        for side, index, count in (("student", pair[0], student), ("teacher", pair[1], teacher)):
            if not first <= index < first + count:
                raise ValueError(
                    f"{option}: no {side} {unit} {index} in {list(pair)}; the {side} has {count}, "
                    f"numbered {first} to {first + count - 1}"
                )
    return [(student_index, teacher_index) for student_index, teacher_index in pairs]


def describe_pair(levels: tuple[int, int], student: Tensor, teacher: Tensor, how: str) -> str:
    """Describe a pair of levels for a log.

    Args:
        levels: level of the student and of the teacher.
        student: features of the student's level (N, ...).
        teacher: features of the teacher's level (N, ...).
        how: how the student's features are adapted.

    Returns:
        For example ``student 2 (64x8x8) <- teacher 3 (256x8x8): conv 1x1``.
    """
    student_shape, teacher_shape = (
        "x".join(str(n) for n in tensor.shape[1:]) for tensor in (student, teacher)
    )
    return f"student {levels[0]} ({student_shape}) <- teacher {levels[1]} ({teacher_shape}): {how}"


class _Level(NamedTuple):
    level: int
    octaves: float
    """Binary logarithm of the side of the grid."""
    depth: float
    """Relative depth, in (0, 1]."""


def _match_automatically(
    student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> list[tuple[int, int]]:
    student_levels, teacher_levels = _candidates(student), _candidates(teacher)
    if len(student_levels) > len(teacher_levels):
        return [(a, b) for b, a in _align(teacher_levels, student_levels)]
    return _align(student_levels, teacher_levels)


def _candidates(levels: Sequence[Tensor]) -> list[_Level]:
    """Levels that may be paired: the deepest of each size, or all if there is one size."""
    grids = [grid_of(as_map(level)) for level in levels]
    octaves = [math.log2(math.prod(grid)) / len(grid) for grid in grids]
    count = len(levels)
    candidates = []
    for i in range(count):
        is_deepest = i == count - 1 or octaves[i] != octaves[i + 1]
        if is_deepest or len(set(octaves)) == 1:
            candidates.append(_Level(i, octaves[i], (i + 1) / count))
    return candidates


def _align(few: list[_Level], many: list[_Level]) -> list[tuple[int, int]]:
    @functools.cache
    def best(i: int, j: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        """Cheapest pairing of the first i of ``few`` with the first j of ``many``."""
        if i == 0:
            return 0.0, ()
        if i > j:
            return math.inf, ()
        one, other = few[i - 1], many[j - 1]
        cost, pairs = best(i - 1, j - 1)
        difference = abs(one.octaves - other.octaves) + abs(one.depth - other.depth)
        take = cost + difference, (*pairs, (one.level, other.level))
        skip = best(i, j - 1)
        # The deeper level wins a tie; the margin hides the rounding of the sums.
        return take if take[0] <= skip[0] + 1e-9 else skip

    return list(best(len(few), len(many))[1])


def consecutive_pairs(
    student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: Pairs, loss: object
) -> list[tuple[int, int]]:
    """Pairs of levels, shallow to deep, for a loss on the change from one level to the next.

    Args:
        student: student levels.
        teacher: teacher levels.
        pairs: pairs, or how to choose them.
        loss: the loss, for the error message.

    Raises:
        ValueError: for fewer than two pairs.
    """
    matched = sorted(match_levels(student, teacher, pairs))
    require_two_stages(len(matched), type(loss).__name__)
    return matched


def require_two_stages(count: int, name: str) -> None:
    """Check that there is a change between levels.

    Raises:
        ValueError: for fewer than two levels.
    """
    if count < 2:
        raise ValueError(
            f"{name} goes from one stage to the next and needs two pairs of stages, not {count}; "
            "tap more stages"
        )
