from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.features.pkd import PKD, pkd_loss


def test_is_one_minus_the_correlation_of_each_channel() -> None:
    student, teacher = torch.randn(3, 4, 2, 5).double(), torch.randn(3, 4, 2, 5).double()
    correlations = [
        np.corrcoef(student[:, c].flatten(), teacher[:, c].flatten())[0, 1] for c in range(4)
    ]
    assert float(pkd_loss(student, teacher)) == pytest.approx(
        (1 - np.mean(correlations)) * 29 / 30, rel=1e-5
    )


def test_units_of_a_channel_do_not_matter() -> None:
    stage = torch.randn(3, 4, 2, 5).double()
    assert float(
        pkd_loss(stage * torch.tensor([1.0, 3.0, 0.5, 100.0]).view(4, 1, 1) + 7, stage)
    ) == pytest.approx(0, abs=1e-9)


def test_a_constant_channel_and_one_value_are_finite() -> None:
    for shape in ((2, 3, 2, 2), (1, 3, 1, 1)):
        student = torch.ones(shape, requires_grad=True)
        loss = pkd_loss(student, torch.randn(shape))
        loss.backward()
        assert student.grad is not None
        assert torch.isfinite(loss)
        assert torch.isfinite(student.grad).all()


def test_any_two_nets(
    features: Callable[..., dict[str, tuple[Tensor, ...]]], nets: tuple[str, str]
) -> None:
    student, teacher = (features(family, seed=seed) for seed, family in enumerate(nets))
    objective = PKD()
    objective.build(student, teacher)
    tracked = {"features": tuple(stage.requires_grad_() for stage in student["features"])}
    loss = objective(tracked, teacher, {})
    assert loss.shape == ()
    loss.backward()
    for index in {i for i, _ in objective.matched}:
        gradient = tracked["features"][index].grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="pkd_loss: the student's shape"):
        pkd_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 2, 2))


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(pkd_loss, fullgraph=True, backend="eager")(student, teacher),
        pkd_loss(student, teacher),
    )
