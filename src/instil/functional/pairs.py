"""Which student stage learns from which teacher stage."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from instil.core import Outputs
from instil.functional.feature_maps import as_map

Pairs = Literal["auto"] | list[list[int]]
"""``auto``, or [[student stage, teacher stage], ...], stages counted from 0, shallow to deep."""


def feature_levels(outputs: Outputs) -> tuple[Tensor, ...]:
    """The stages of ``features``, shallow to deep; one tensor is one stage."""
    features = outputs["features"]
    return (features,) if isinstance(features, Tensor) else tuple(features)


def match_levels(
    student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: Pairs = "auto"
) -> list[tuple[int, int]]:
    """(student stage, teacher stage) pairs: those given, or ``auto``.

    ``auto`` keeps the deepest stage of each spatial size (all stages of a net whose size never changes, such as a ViT), then gives every stage
    of the side with fewer its own partner, in order, with the least total difference in size (in octaves) and relative depth.

    Raises ValueError where a pair is not two numbers or names a stage that is not there.
    """
    if pairs == "auto":
        return _automatic(student, teacher)
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
    """The pairs of an option that lists them, checked against how many stages (or what ``unit`` says) either side has, counted from ``first``.

    ``named`` says what else the option may be. Raises ValueError where a pair is not two numbers or names a stage that is not there.
    """
    if isinstance(pairs, str) or not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{option}: {pairs!r} is neither {named} nor a list of [student {unit}, teacher {unit}]"
        )
    for pair in pairs:
        for side, number, count in (("student", pair[0], student), ("teacher", pair[1], teacher)):
            if not first <= number < first + count:
                numbers = f"the {side} has {count}, numbered {first} to {first + count - 1}"
                raise ValueError(f"{option}: no {side} {unit} {number} in {list(pair)}; {numbers}")
    return [(mine, theirs) for mine, theirs in pairs]


def describe_pair(stage: tuple[int, int], student: Tensor, teacher: Tensor, how: str) -> str:
    """One pair in words: ``student 2 (64x8x8) <- teacher 3 (256x8x8): conv 1x1``."""
    mine, theirs = ("x".join(str(n) for n in tensor.shape[1:]) for tensor in (student, teacher))
    return f"student {stage[0]} ({mine}) <- teacher {stage[1]} ({theirs}): {how}"


def _automatic(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
    mine, theirs = _candidates(student), _candidates(teacher)
    if len(mine) > len(theirs):
        return [(a, b) for b, a in _align(theirs, mine)]
    return _align(mine, theirs)


def _candidates(side: Sequence[Tensor]) -> list[tuple[int, float, float]]:
    """Number, size in octaves and relative depth of the stages that may be paired."""
    octaves = [math.log2(math.prod(as_map(stage).shape[-2:])) / 2 for stage in side]
    last = len(side) - 1
    keeps = [
        len(set(octaves)) == 1 or i == last or octaves[i] != octaves[i + 1]
        for i in range(len(side))
    ]
    return [(i, octaves[i], (i + 1) / len(side)) for i in range(len(side)) if keeps[i]]


def _align(
    few: list[tuple[int, float, float]], many: list[tuple[int, float, float]]
) -> list[tuple[int, int]]:
    @functools.cache
    def best(i: int, j: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        """The cheapest way to give the first i of ``few`` partners among the first j of ``many``; the deeper one on a tie."""
        if i == 0:
            return 0.0, ()
        if i > j:
            return math.inf, ()
        (a, size_a, depth_a), (b, size_b, depth_b) = few[i - 1], many[j - 1]
        cost, chosen = best(i - 1, j - 1)
        take = cost + abs(size_a - size_b) + abs(depth_a - depth_b), (*chosen, (a, b))
        skip = best(i, j - 1)
        return take if take[0] <= skip[0] + 1e-9 else skip

    return list(best(len(few), len(many))[1])
