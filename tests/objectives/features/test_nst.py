from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.objectives.features.nst import NST, nst_loss


def kernels(name: str, a: np.ndarray, b: np.ndarray, width: float) -> float:
    if name == "linear":
        return float(a @ b)
    if name == "polynomial":
        return float(a @ b) ** 2
    return float(np.exp(-((a - b) ** 2).sum() / (2 * width)))


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_is_the_discrepancy_of_two_sets_of_channels(kernel: str) -> None:
    student, teacher = (
        torch.randn(2, 3, 2, 4, dtype=torch.float64),
        torch.randn(2, 5, 2, 4, dtype=torch.float64),
    )
    for n, ours in enumerate(nst_loss(student, teacher, kernel, reduction="none")):
        student_channels, teacher_channels = (
            [c.flatten().numpy() / np.linalg.norm(c.numpy()) for c in side[n]]
            for side in (student, teacher)
        )
        width = float(
            np.mean([((a - b) ** 2).sum() for a in student_channels for b in teacher_channels])
        )

        def similarity(
            first: list[np.ndarray], second: list[np.ndarray], width: float = width
        ) -> float:
            return float(np.mean([kernels(kernel, a, b, width) for a in first for b in second]))

        assert float(ours) == pytest.approx(
            similarity(teacher_channels, teacher_channels)
            + similarity(student_channels, student_channels)
            - 2 * similarity(student_channels, teacher_channels)
        )


def test_polynomial_has_degree_and_offset() -> None:
    student, teacher = torch.rand(1, 1, 1, 3).double(), torch.rand(1, 1, 1, 3).double()
    cosine = torch.nn.functional.cosine_similarity(student.flatten(1), teacher.flatten(1))
    assert torch.allclose(
        nst_loss(student, teacher, degree=3, offset=0.5), 2 * 1.5**3 - 2 * (cosine + 0.5) ** 3
    )


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_order_and_scale_of_channels_do_not_matter(kernel: str) -> None:
    stage = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    other = stage[:, [3, 1, 0, 5, 4, 2]] * torch.rand(6, 1, 1).add(0.1)
    assert float(nst_loss(other, stage, kernel)) == pytest.approx(0, abs=1e-12)
    assert nst_loss(other.flip(3), stage, kernel) > 1e-3  # type: ignore[arg-type]


def test_the_larger_map_is_pooled() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    assert torch.allclose(
        nst_loss(student, teacher), nst_loss(torch.nn.functional.avg_pool2d(student, 2), teacher)
    )


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_one_dead_channel_has_a_finite_gradient(kernel: str) -> None:
    student = torch.zeros(1, 1, 2, 2, requires_grad=True)
    nst_loss(student, torch.zeros(1, 1, 2, 2), kernel).backward()  # type: ignore[arg-type]
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_one_position_and_an_unknown_kernel_are_errors() -> None:
    with pytest.raises(ValueError, match=r"needs more than one position, not \(2, 3, 1, 1\)"):
        nst_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 4, 4))
    with pytest.raises(
        ValueError, match=r"kernel: unknown value.*got 'poly'. Did you mean polynomial"
    ):
        nst_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), "poly")  # type: ignore[arg-type]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(NST())


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    for kernel in ("polynomial", "gaussian"):
        compiled = torch.compile(nst_loss, fullgraph=True, backend="eager")
        assert torch.allclose(
            compiled(student, teacher, kernel), nst_loss(student, teacher, kernel)
        )  # type: ignore[arg-type]
