from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.vkd import OrthogonalProjection, VkD, vkd_loss
from instil.testing import check_objective


def smooth_l1(difference: np.ndarray) -> float:
    size = np.abs(difference)
    return float(np.where(size < 1, size**2 / 2, size - 0.5).mean())


def test_the_teacher_alone_is_normalised_over_its_channels() -> None:
    student, teacher = (
        torch.randn(3, 6, dtype=torch.float64),
        5 * torch.randn(3, 6, dtype=torch.float64),
    )
    for n in range(3):
        target = (teacher[n].numpy() - teacher[n].numpy().mean()) / np.sqrt(
            teacher[n].numpy().var() + 1e-5
        )
        assert np.isclose(
            vkd_loss(student, teacher, reduction="none")[n],
            smooth_l1(student[n].numpy() - target),
            rtol=1e-10,
        )


def test_both_are_standardized_over_the_batch() -> None:
    student, teacher = (
        torch.randn(3, 4, 6, dtype=torch.float64),
        5 * torch.randn(3, 4, 6, dtype=torch.float64),
    )
    rows = [side.reshape(12, 6).numpy() for side in (student, teacher)]
    s, t = ((side - side.mean(0)) / side.std(0, ddof=1) for side in rows)
    assert np.isclose(vkd_loss(student, teacher, "batch"), smooth_l1(s - t), rtol=1e-10)


@pytest.mark.parametrize(("source", "target"), [(4, 7), (7, 4), (5, 5)])
def test_the_projection_keeps_angles_while_it_learns(source: int, target: int) -> None:
    projection = OrthogonalProjection(source, target)
    optimizer = torch.optim.SGD(projection.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        projection(torch.randn(8, source)).square().sum().backward()
        projection(torch.randn(8, source)).sum().backward()
        optimizer.step()
    weight = projection.projector.weight.detach()
    gram = weight.T @ weight if target >= source else weight @ weight.T
    assert torch.allclose(gram, torch.eye(min(source, target)), atol=1e-5)


def test_batch_normalization_couples_the_samples() -> None:
    assert VkD("batch").couples
    assert not VkD().couples
    stage = torch.randn(4, 5, 2, 2)
    objective = VkD("batch")
    objective.build({"features": stage}, {"features": stage})
    assert objective({"features": stage}, {"features": stage}, {}).shape == ()
    check_objective(lambda: VkD("batch", pool=False))


def test_the_deepest_pair_alone_is_projected() -> None:
    objective = VkD()
    student = {"features": (torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4))}
    objective.build(student, {"features": (torch.randn(2, 6, 8, 8), torch.randn(2, 8, 4, 4))})
    assert objective.plan == ["student 1 (4x4x4) <- teacher 1 (8x4x4): projected orthogonally"]


def test_an_unknown_norm_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"normalize: unknown value.*got 'bach'. Did you mean batch"
    ):
        VkD(normalize="bach")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", [True, False])
def test_any_two_nets(check_pair: Callable[[Objective], None], pool: bool) -> None:
    check_pair(VkD(pool=pool))


@pytest.mark.parametrize("normalize", ["layer", "batch"])
def test_compiles_whole(normalize: str) -> None:
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    compiled = torch.compile(vkd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, normalize), vkd_loss(student, teacher, normalize)
    )  # type: ignore[arg-type]
