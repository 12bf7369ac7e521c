from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.fitnet import FitNet, fitnet_loss
from instil.testing import check_objective


def test_is_the_mean_squared_difference_of_each_sample() -> None:
    student, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
    )
    a, b = student.numpy(), teacher.numpy()
    expected = [
        sum(
            (a[n, c, i, j] - b[n, c, i, j]) ** 2
            for c in range(2)
            for i in range(4)
            for j in range(5)
        )
        / (2 * 4 * 5)
        for n in range(3)
    ]
    assert np.allclose(fitnet_loss(student, teacher, reduction="none"), expected, rtol=1e-12)
    assert np.isclose(float(fitnet_loss(student, teacher)), np.mean(expected))


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"fitnet_loss: the student's shape"):
        fitnet_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 4, 4))


def test_sums_the_pairs() -> None:
    stages = tuple(torch.randn(2, 3, 4, 4) for _ in range(4))
    objective = FitNet([[0, 1], [1, 0]])
    student, teacher = {"features": stages[:2]}, {"features": stages[2:]}
    objective.build(student, teacher)
    expected = fitnet_loss(stages[0], stages[3], reduction="none") + fitnet_loss(
        stages[1], stages[2], reduction="none"
    )
    assert torch.allclose(objective(student, teacher, {}), expected)


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(FitNet())


def test_contracts() -> None:
    check_objective(FitNet)


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(fitnet_loss, fullgraph=True, backend="eager")(student, teacher),
        fitnet_loss(student, teacher),
    )
