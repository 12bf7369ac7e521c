"""Fréchet distance and neighbour metrics, compared with scipy and with loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from instil.functional.sample_quality import frechet_distance, precision_recall_coverage


def draw(size: int, seed: int, scale: float = 1.0) -> Tensor:
    values = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    return (
        scale * values @ torch.tensor([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 2, 1], [0, 0, 0, 1]])
    )


def test_frechet_distance_equals_scipy() -> None:
    one, two = draw(50, 0).double().numpy(), draw(40, 1, 1.5).double().numpy()
    first, second = np.cov(one.T), np.cov(two.T)
    root = scipy.linalg.sqrtm(first @ second)
    expected = np.square(one.mean(0) - two.mean(0)).sum() + np.trace(first + second - 2 * root.real)
    assert frechet_distance(*map(torch.from_numpy, (one, two))).item() == pytest.approx(expected)


def test_frechet_distance_of_a_singular_covariance() -> None:
    one = draw(3, 0)
    assert frechet_distance(one, one).item() == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one + 1, one).item() == pytest.approx(4, abs=1e-5)


def distance(one: Tensor, two: Tensor) -> float:
    return float((one - two).square().sum().sqrt())


def radius(rows: Tensor, row: int, neighbours: int) -> float:
    others = sorted(distance(rows[row], rows[i]) for i in range(len(rows)) if i != row)
    return others[neighbours - 1]


def test_neighbour_metrics_equal_loops() -> None:
    fake, real, k = draw(12, 0, 1.2).double(), draw(15, 1).double(), 3
    in_real = [[distance(f, real[r]) < radius(real, r, k) for r in range(len(real))] for f in fake]
    in_fake = [[distance(r, fake[f]) < radius(fake, f, k) for f in range(len(fake))] for r in real]
    result = precision_recall_coverage(fake, real, k)
    assert result["precision"] == pytest.approx(np.mean([any(row) for row in in_real]))
    assert result["recall"] == pytest.approx(np.mean([any(row) for row in in_fake]))
    assert result["density"] == pytest.approx(np.sum(in_real) / k / len(fake))
    assert result["coverage"] == pytest.approx(np.mean(np.any(in_real, 0)))
    assert 0 < result["precision"] < 1


def test_copies_are_perfect_and_far_samples_are_not() -> None:
    real = draw(20, 0)
    same = precision_recall_coverage(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    far = precision_recall_coverage(real + 100, real)
    assert set(far.values()) == {0.0}
    # One image again and again: precise, but it covers nothing.
    collapsed = precision_recall_coverage(real[:1].expand(20, 4), real)
    assert collapsed["precision"] == 1
    assert collapsed["recall"] == 0
    assert collapsed["coverage"] < 0.6


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two samples, got"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="wrong shapes"):
        precision_recall_coverage(torch.zeros(3, 4), torch.zeros(3, 5))
