"""Streamlined KD against numpy's covariance and inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.streamlined_kd import StreamlinedKD, direction_loss


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher


@pytest.mark.parametrize("tikhonov", [0.1, 1.0])
def test_directions_equal_the_formula(tikhonov: float) -> None:
    student, teacher = pair()
    cosines = [
        [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in side] for a in side]
        for side in (student.numpy(), teacher.numpy())
    ]
    difference = np.array(cosines[0]) - np.array(cosines[1])
    inverse = np.linalg.inv(np.cov(difference.T) + tikhonov * np.eye(6))
    expected = np.mean([np.sqrt(row @ inverse @ row) for row in difference])
    torch.testing.assert_close(direction_loss(student, teacher, tikhonov), torch.tensor(expected))


def test_is_the_sum_of_its_parts() -> None:
    student, teacher = pair()
    loss = StreamlinedKD(3.0, 0.2, 0.5)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(
        loss,
        kd_loss(student, teacher, 3.0, scale=False) + 0.5 * direction_loss(student, teacher, 0.2),
    )


def test_lengths_of_logits_do_not_matter_to_directions() -> None:
    student, teacher = pair()
    torch.testing.assert_close(
        direction_loss(student * torch.arange(1, 7)[:, None], teacher),
        direction_loss(student, teacher),
    )


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.eye(4, 3)])
def test_zero_differences_and_zero_logits_are_finite(student: Tensor) -> None:
    leaf = student.clone().requires_grad_()
    loss = direction_loss(leaf, torch.eye(4, 3))
    assert torch.autograd.grad(loss, leaf)[0].isfinite().all()
    assert direction_loss(student, student) == 0


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(direction_loss, fullgraph=True, backend="eager")(*pair()),
        direction_loss(*pair()),
    )
