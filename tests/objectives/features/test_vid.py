from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective, Schedule
from instil.objectives.features.vid import VID, Regressor, vid_loss
from instil.testing import check_objective


def test_is_the_gaussian_likelihood_of_each_element() -> None:
    mean, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
    )
    variance = torch.tensor([0.5, 7.0], dtype=torch.float64)
    normal = torch.distributions.Normal(mean, variance.sqrt()[:, None, None])
    expected = -normal.log_prob(teacher).flatten(1).mean(1) - np.log(2 * np.pi) / 2
    assert torch.allclose(vid_loss(mean, teacher, variance, reduction="none"), expected, rtol=1e-12)
    assert torch.allclose(vid_loss(mean, teacher, variance), expected.mean(), rtol=1e-12)


def test_the_regressor_is_three_convolutions_and_a_variance() -> None:
    regressor = Regressor(3, 4, 5, 0.7).double()
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    mean, variance = regressor(student)
    first, second, third = (
        regressor.regressor[n].weight.detach().numpy()[:, :, 0, 0] for n in (0, 2, 4)
    )

    def position(x: Tensor) -> np.ndarray:
        return third @ np.maximum(second @ np.maximum(first @ x.numpy(), 0), 0)

    for n in range(2):
        for i in range(2):
            assert np.allclose(mean.detach()[n, :, i, 1], position(student[n, :, i, 1]), rtol=1e-12)
    assert torch.allclose(variance, torch.tensor(0.7, dtype=torch.float64))


@pytest.mark.parametrize("variance", [1e-4, 5.0, 1e4])
def test_variances_start_at_the_option(variance: float) -> None:
    _, learned = Regressor(3, 3, 2, variance)(torch.zeros(1, 3, 1, 1))
    assert torch.allclose(learned, torch.full((2,), variance), rtol=1e-3)


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="vid_loss: the student's shape"):
        vid_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 4, 4), torch.ones(3))


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(VID())


def test_contracts() -> None:
    check_objective(VID)
    check_objective(lambda: VID(variance=Schedule(1.0, 2.0)))  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    mean, teacher, variance = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.ones(3)
    compiled = torch.compile(vid_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(mean, teacher, variance), vid_loss(mean, teacher, variance))
