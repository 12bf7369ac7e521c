from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.norm import NORM, norm_loss
from instil.testing import check_objective


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 6, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
    )
    expected = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        expected.append(sum(((s[2 * m : 2 * m + 2] - t) ** 2).mean() for m in range(3)))
    assert np.allclose(norm_loss(student, teacher, "none"), expected, rtol=1e-12)
    assert np.isclose(float(norm_loss(student, teacher)), np.mean(expected))


def test_is_zero_if_every_segment_equals_the_teacher() -> None:
    teacher = torch.randn(2, 3, 4, 4)
    assert norm_loss(torch.cat([teacher] * 5, 1), teacher) == 0


def test_the_larger_map_is_averaged_to_the_smaller_size() -> None:
    student, teacher = (
        {"features": (torch.randn(2, 4, 6, 4),)},
        {"features": (torch.randn(2, 3, 2, 8),)},
    )
    objective = NORM(segments=2)
    objective.build(student, teacher)
    level, expanded = objective.expand(student)
    assert torch.equal(level, student["features"][0])
    assert expanded.shape == (2, 6, 6, 4)
    pooled = (
        nn.functional.adaptive_avg_pool2d(expanded, (2, 4)),
        nn.functional.adaptive_avg_pool2d(teacher["features"][0], (2, 4)),
    )
    assert torch.allclose(objective(student, teacher, {}), norm_loss(*pooled, "none"))


def test_auto_pairs_the_deepest_levels(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    objective = NORM()
    objective.build(features("cnn"), features("wide cnn", seed=1))
    assert objective.matched == [(2, 3)]


def test_features_that_cannot_be_split_are_an_error() -> None:
    with pytest.raises(ValueError, match="Expected a multiple of 2 channels and size"):
        norm_loss(torch.zeros(1, 5, 2, 2), torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="Expected a multiple of 2 channels and size"):
        norm_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 1, 2))


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(NORM(segments=3))


def test_contracts() -> None:
    check_objective(lambda: NORM(segments=1, pairs=[[1, 0], [2, 2]]))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(norm_loss, fullgraph=True, backend="eager")(student, teacher),
        norm_loss(student, teacher),
    )
