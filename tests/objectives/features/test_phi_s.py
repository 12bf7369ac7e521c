from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.phi_s import PhiS, phi_s_loss, phi_s_matrix


@pytest.mark.parametrize("width", [1, 5, 8, 10, 12])
def test_every_channel_has_variance_one_and_directions_keep_their_ratio(width: int) -> None:
    rows = (
        torch.randn(200, width, dtype=torch.float64)
        @ torch.randn(width, width, dtype=torch.float64)
        + 3
    )
    mean, matrix = phi_s_matrix(rows)
    standard = (rows - mean) @ matrix.T
    assert np.allclose(standard.mean(0), 0, atol=1e-10)
    assert np.allclose(np.var(standard.numpy(), axis=0, ddof=1), 1, rtol=1e-8)
    energy = np.trace(np.atleast_2d(np.cov(rows.numpy().T))) / width
    assert np.allclose(matrix @ matrix.T, np.eye(width) / energy, atol=1e-10 / energy)


def test_one_row_or_a_constant_is_finite() -> None:
    for rows in (torch.ones(1, 4), torch.ones(5, 4)):
        mean, matrix = phi_s_matrix(rows)
        assert torch.equal(mean, torch.ones(4))
        assert torch.isfinite(matrix).all()


def test_is_the_squared_difference_of_the_standardized_patches() -> None:
    student, teacher, mean, matrix = (
        torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 4), (2, 3, 4), (4,), (4, 4))
    )
    for n in range(2):
        expected = np.mean(
            [
                (student[n, t].numpy() - matrix.numpy() @ (teacher[n, t] - mean).numpy()) ** 2
                for t in range(3)
            ]
        )
        assert np.isclose(
            phi_s_loss(student, teacher, mean, matrix, "none")[n], expected, rtol=1e-12
        )


def test_statistics_are_those_of_the_first_batch_and_in_the_state() -> None:
    student, teacher = (
        {"features": torch.randn(4, 3, 4, 4)},
        {"features": 50 * torch.randn(4, 6, 4, 4) + 7},
    )
    objective = PhiS()
    objective.build(student, teacher)
    mean, matrix = phi_s_matrix(teacher["features"].movedim(1, 3).reshape(-1, 6))
    state = objective.state_dict()
    assert torch.allclose(state["targets.0.mean"], mean, rtol=1e-5)
    assert torch.allclose(state["targets.0.matrix"], matrix, atol=1e-5)
    before = {name: value.clone() for name, value in state.items()}
    objective(student, {"features": teacher["features"] * 3}, {})
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(PhiS())


def test_compiles_whole() -> None:
    arguments = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(4), torch.randn(4, 4)
    assert torch.allclose(
        torch.compile(phi_s_loss, fullgraph=True, backend="eager")(*arguments),
        phi_s_loss(*arguments),
    )
