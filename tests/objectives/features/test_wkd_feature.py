from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.wkd_feature import WKDFeature, grid_cells, wkd_feature_loss
from instil.testing import check_objective


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


@pytest.mark.parametrize("grid", [1, 2])
def test_is_the_distance_of_two_gaussians(grid: int) -> None:
    student, teacher = (
        torch.randn(2, 3, 4, 6, dtype=torch.float64),
        torch.randn(2, 3, 8, 4, dtype=torch.float64),
    )
    for covariance in ("diagonal", "full"):
        expected = []
        for a, b in zip(student.numpy(), teacher.numpy(), strict=True):
            total = 0.0
            for i in range(grid):
                for j in range(grid):
                    x, y = (
                        m[
                            :,
                            i * m.shape[1] // grid : (i + 1) * m.shape[1] // grid,
                            j * m.shape[2] // grid : (j + 1) * m.shape[2] // grid,
                        ].reshape(3, -1)
                        for m in (a, b)
                    )
                    total += 1.5 * ((x.mean(1) - y.mean(1)) ** 2).sum()
                    p, q = np.cov(x), np.cov(y)
                    if covariance == "full":
                        total += np.trace(p + q - 2 * root(root(p) @ q @ root(p)))
                    else:
                        total += sum(
                            (np.sqrt(p[c, c] + 0.01) - np.sqrt(q[c, c] + 0.01)) ** 2
                            for c in range(3)
                        )
            expected.append(total / grid**2)
        ours = wkd_feature_loss(student, teacher, covariance, 1.5, grid, 0.01, "none")
        assert np.allclose(ours, expected, rtol=1e-9)
        assert np.isclose(
            float(wkd_feature_loss(student, teacher, covariance, 1.5, grid, 0.01)),
            np.mean(expected),
        )  # type: ignore[arg-type]


def test_cells_overlap_as_in_adaptive_pooling() -> None:
    image = torch.randn(2, 3, 5, 7)
    means = torch.stack([cell.mean(2) for cell in grid_cells(image, 3)], 2)
    assert torch.allclose(means, nn.functional.adaptive_avg_pool2d(image, 3).flatten(2), atol=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_is_zero_and_flat_at_a_match(covariance: str) -> None:
    image = torch.randn(2, 6, 2, 2, requires_grad=True)
    loss = wkd_feature_loss(image, image.detach(), covariance)  # type: ignore[arg-type]
    loss.backward()
    assert loss.abs() < 1e-5
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-4
    constant = torch.zeros(2, 6, 2, 2, requires_grad=True)
    wkd_feature_loss(constant, torch.zeros(2, 6, 2, 2), covariance).backward()
    assert constant.grad is not None
    assert torch.isfinite(constant.grad).all()


def test_positions_within_a_cell_do_not_matter() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for covariance in ("diagonal", "full"):
        ours = wkd_feature_loss(student, teacher, covariance)  # type: ignore[arg-type]
        assert torch.allclose(
            ours, wkd_feature_loss(student.flip(2), teacher, covariance), rtol=1e-4
        )  # type: ignore[arg-type]


def test_auto_pairs_the_deepest_levels_and_has_a_relu_if_the_teacher_has_one(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("wide cnn", seed=1)
    objective = WKDFeature()
    objective.build(student, teacher)
    assert objective.matched == [(2, 3)]
    assert [type(module) for module in objective.adapters[0]][-1] is nn.Identity
    objective.build(student, {"features": tuple(stage.relu() for stage in teacher["features"])})
    assert [type(module) for module in objective.adapters[0]][-1] is nn.ReLU


def test_small_cells_other_channels_and_an_unknown_covariance_are_errors(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    with pytest.raises(
        ValueError, match=r"grid: a cell has one position.*got 2 cells per dimension"
    ):
        WKDFeature(grid=2).build(features("cnn"), features("cnn", seed=1))
    with pytest.raises(ValueError, match=r"the channels differ. Expected 4 .*got 3"):
        wkd_feature_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))
    with pytest.raises(
        ValueError, match=r"covariance: unknown value.*got 'diag'. Did you mean diagonal"
    ):
        WKDFeature(covariance="diag")  # type: ignore[arg-type]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(WKDFeature())
    check_pair(WKDFeature(covariance="full"))


def test_contracts() -> None:
    check_objective(lambda: WKDFeature(grid=2, pairs=[[0, 0], [1, 1]]))


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_compiles_whole(covariance: str) -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    compiled = torch.compile(wkd_feature_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, covariance), wkd_feature_loss(student, teacher, covariance)
    )  # type: ignore[arg-type]
