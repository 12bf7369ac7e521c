"""Correlations of feature maps over channels and over samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.objectives.features.dist_plus import DISTPlus, dist_plus_loss


def correlation(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = [sum((x - m) ** 2 for x in v) for v, m in ((a, mean_a), (b, mean_b))]
    return float(product / (squares[0] * squares[1]) ** 0.5)


def maps(seed: int, shape: tuple[int, ...] = (5, 4, 2, 3)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_a_loop_over_samples_and_positions() -> None:
    student, teacher = maps(0).requires_grad_(), maps(1)
    s, t = student.tolist(), teacher.tolist()
    channel, spatial = [], []
    for y in range(2):
        for x in range(3):
            for n in range(5):
                pair = ([side[n][c][y][x] for c in range(4)] for side in (s, t))
                channel.append(1 - correlation(*pair))
            sums = ([sum(side[n][c][y][x] for c in range(4)) for n in range(5)] for side in (s, t))
            spatial.append(1 - correlation(*sums))
    expected = 0.3 * sum(channel) / 30 + 2.0 * sum(spatial) / 6
    assert dist_plus_loss(student, teacher, 0.3, 2.0).item() == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.gradcheck(lambda a: dist_plus_loss(a, teacher, 0.3, 2.0), student)


def test_scale_and_offset_do_not_matter() -> None:
    student = maps(0)
    assert dist_plus_loss(3 * student + 7, student).item() == pytest.approx(0, abs=1e-6)
    assert dist_plus_loss(-student, student).item() == pytest.approx(4, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 1, 2, 2), (2, 3, 1, 1)])
def test_one_sample_channel_or_position_and_constants_are_finite(shape: tuple[int, ...]) -> None:
    for student in (torch.ones(shape), torch.randn(shape)):
        student.requires_grad_()
        loss = dist_plus_loss(student, torch.randn(shape))
        loss.backward()
        assert student.grad is not None
        assert torch.isfinite(loss)
        assert torch.isfinite(student.grad).all()


def test_any_pair_of_networks(
    features: Callable[..., dict[str, tuple[Tensor, ...]]], nets: tuple[str, str]
) -> None:
    student, teacher = (features(family, seed=seed) for seed, family in enumerate(nets))
    objective = DISTPlus()
    objective.build(student, teacher)
    leaves = {"features": tuple(stage.requires_grad_() for stage in student["features"])}
    loss = objective(leaves, teacher, {})
    assert loss.shape == ()
    loss.backward()
    ((index, _),) = objective.matched
    gradient = leaves["features"][index].grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_errors_name_the_shapes() -> None:
    with pytest.raises(ValueError, match="dist_plus_loss: the student's shape"):
        dist_plus_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"Expected \(N, C, \*grid\), got \(2, 3\)"):
        dist_plus_loss(torch.zeros(2, 3), torch.zeros(2, 3))
