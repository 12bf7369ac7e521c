from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from instil.functional.pairs import describe_pair, feature_levels, match_levels
from instil.objectives.features.fitnet import FitNet


def pyramid(*sizes: int) -> list[Tensor]:
    return [torch.zeros(1, 3, size, size) for size in sizes]


def tokens(depth: int, length: int = 197) -> list[Tensor]:
    return [torch.zeros(1, length, 3) for _ in range(depth)]


def test_equal_pyramids_are_paired_stage_by_stage() -> None:
    assert match_levels(pyramid(32, 16, 8), pyramid(32, 16, 8)) == [(0, 0), (1, 1), (2, 2)]


def test_the_deepest_stage_of_each_size_is_used() -> None:
    assert match_levels(pyramid(32, 32, 16, 8), pyramid(32, 16, 16, 16, 8)) == [
        (1, 0),
        (2, 3),
        (3, 4),
    ]


def test_size_decides_between_pyramids_of_different_depth() -> None:
    assert match_levels(pyramid(16, 8), pyramid(64, 32, 16, 8)) == [(0, 2), (1, 3)]
    assert match_levels(pyramid(64, 32, 16, 8), pyramid(16, 8)) == [(2, 0), (3, 1)]


def test_relative_depth_decides_where_the_size_never_changes() -> None:
    assert match_levels(tokens(4), tokens(12)) == [(0, 2), (1, 5), (2, 8), (3, 11)]
    assert match_levels(pyramid(32, 16, 8), tokens(12)) == [(0, 3), (1, 7), (2, 11)]
    assert match_levels(tokens(12), pyramid(32, 16, 8)) == [(3, 0), (7, 1), (11, 2)]
    assert match_levels(tokens(3), tokens(3)) == [(0, 0), (1, 1), (2, 2)]


def test_one_stage_is_paired_with_the_deepest() -> None:
    assert match_levels(tokens(1), tokens(5)) == [(0, 4)]


@pytest.mark.parametrize("seed", range(10))
def test_automatic_pairs_are_the_cheapest_in_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [
        sorted({int(n) for n in torch.randint(1, 65, (count,), generator=generator)}, reverse=True)
        for count in (4, 7)
    ]
    few, many = sorted(sizes, key=len)
    if len(few) == 1:
        many, few = many[:1], few

    def cost(chosen: tuple[int, ...]) -> float:
        terms = [
            abs(math.log2(few[i] / many[j])) + abs((i + 1) / len(few) - (j + 1) / len(many))
            for i, j in enumerate(chosen)
        ]
        return sum(terms)

    least = min(cost(chosen) for chosen in itertools.combinations(range(len(many)), len(few)))
    actual = match_levels(pyramid(*few), pyramid(*many))
    assert [i for i, _ in actual] == list(range(len(few)))
    partners = tuple(j for _, j in actual)
    assert list(partners) == sorted(set(partners))
    assert cost(partners) == pytest.approx(least)


def test_explicit_pairs_are_used_unchanged() -> None:
    assert match_levels(pyramid(8, 4), tokens(3), [[1, 2], [0, 0]]) == [(1, 2), (0, 0)]


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([[2, 0]], r"pairs: no student stage 2 in \[2, 0\]; the student has 2, numbered 0 to 1"),
        ([[0, 3]], r"pairs: no teacher stage 3 in \[0, 3\]; the teacher has 3, numbered 0 to 2"),
        ([[-1, 0]], r"pairs: no student stage -1"),
        ([[0]], r"pairs: \[\[0\]\] is neither 'auto' nor"),
        ([], r"pairs: \[\] is neither"),
        ("autp", r"pairs: 'autp' is neither"),
    ],
)
def test_bad_pairs_are_refused(pairs: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        match_levels(pyramid(8, 4), tokens(3), pairs)  # type: ignore[arg-type]


def test_one_tensor_is_one_stage() -> None:
    """KD_Lib's attention loss is zero unless the model returns a tuple."""
    assert len(feature_levels({"features": torch.zeros(2, 3, 4, 4)})) == 1


def test_the_plan_is_readable() -> None:
    student, teacher = torch.zeros(2, 64, 8, 8), torch.zeros(2, 256, 8, 8)
    assert (
        describe_pair((2, 3), student, teacher, "conv 1x1")
        == "student 2 (64x8x8) <- teacher 3 (256x8x8): conv 1x1"
    )
    fitnet = FitNet(pairs=[[1, 0]])
    fitnet.build({"features": (teacher, student)}, {"features": (teacher,)})
    assert fitnet.plan == ["student 1 (64x8x8) <- teacher 0 (256x8x8): conv 1x1"]
