from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.simkd import Projector, SimKD, simkd_loss
from instil.testing import check_objective


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
    )
    expected = [
        sum((a - b) ** 2 for a, b in zip(s.numpy().ravel(), t.numpy().ravel(), strict=True)) / 40
        for s, t in zip(student, teacher, strict=True)
    ]
    assert np.allclose(simkd_loss(student, teacher, "none"), expected, rtol=1e-12)
    assert np.isclose(float(simkd_loss(student, teacher)), np.mean(expected))
    with pytest.raises(ValueError, match="simkd_loss: the student's shape"):
        simkd_loss(student, teacher[:, :1])


@pytest.mark.parametrize(
    ("student", "teacher"), [((6, 4), (3, 2)), ((3, 2), (6, 4)), ((6, 2), (3, 4))]
)
def test_both_are_resized_to_the_smaller_grid(
    student: tuple[int, int], teacher: tuple[int, int]
) -> None:
    student_outputs, teacher_outputs = (
        {"features": (torch.randn(2, 4, *student),)},
        {"features": (torch.randn(2, 6, *teacher),)},
    )
    objective = SimKD(factor=3)
    objective.build(student_outputs, teacher_outputs)
    projector = objective.adapters[0]
    assert isinstance(projector, Projector)
    assert projector.grid == (3, 2)
    assert projector.body[0].out_channels == 2
    pooled = (
        nn.functional.adaptive_avg_pool2d(student_outputs["features"][0], (3, 2)),
        nn.functional.adaptive_avg_pool2d(teacher_outputs["features"][0], (3, 2)),
    )
    expected = (projector.body(pooled[0]) - pooled[1]).square().mean((1, 2, 3))
    assert torch.allclose(objective(student_outputs, teacher_outputs, {}), expected, atol=1e-6)
    assert torch.allclose(objective.project(student_outputs), projector.body(pooled[0]), atol=1e-6)


def test_auto_pairs_the_deepest_levels(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    objective = SimKD()
    objective.build(features("cnn"), features("wide cnn", seed=1))
    assert objective.matched == [(2, 3)]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(SimKD())


def test_contracts() -> None:
    check_objective(lambda: SimKD(factor=1, pairs=[[1, 0], [2, 2]]))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(simkd_loss, fullgraph=True, backend="eager")(student, teacher),
        simkd_loss(student, teacher),
    )
