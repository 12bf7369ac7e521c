"""NormKD against a plain loop, and its invariance to the scale of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.normkd import NormKD, normkd_loss


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 6, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_equals_the_formula(temperature: float) -> None:
    student, teacher = pair()
    expected = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        student_temperature, teacher_temperature = (
            temperature * np.std(s, ddof=1),
            temperature * np.std(t, ddof=1),
        )
        p, q = softmax(t / teacher_temperature), softmax(s / student_temperature)
        expected.append(
            teacher_temperature**2 * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        )
    expected_values = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        normkd_loss(student, teacher, temperature, "none"), expected_values, rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(
        NormKD(temperature)({"logits": student}, {"logits": teacher}, {}),
        expected_values,
        rtol=1e-6,
        atol=1e-9,
    )


def test_scale_and_mean_of_the_student_do_not_matter() -> None:
    student, teacher = pair()
    torch.testing.assert_close(
        normkd_loss(3 * student + 7, teacher), normkd_loss(student, teacher), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(
        normkd_loss(student, 3 * teacher), 9 * normkd_loss(student, teacher), rtol=1e-6, atol=1e-9
    )


def test_a_constant_row_is_finite() -> None:
    student = torch.zeros(2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(normkd_loss(student, torch.eye(4)[:2]), student)
    assert gradient.isfinite().all()
    assert normkd_loss(torch.eye(4)[:2], torch.zeros(2, 4)) == 0


def test_two_classes_raise() -> None:
    with pytest.raises(ValueError, match="at least 3 classes, not 2"):
        normkd_loss(torch.zeros(3, 2), torch.zeros(3, 2))


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(normkd_loss, fullgraph=True, backend="eager")(*pair()), normkd_loss(*pair())
    )
