"""RLD against a plain loop, and masks that remove all or no classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.dkd import dkd_loss
from instil.objectives.logits.rld import RLD, rld_loss


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    target = torch.randint(0, 5, (6,), generator=generator)
    target[0], target[1] = teacher[0].argmax(), teacher[1].argmin()
    return student, teacher, target


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


@pytest.mark.parametrize(
    ("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (0.5, 1.0, 1.0), (0.0, 1.0, 2.0)]
)
def test_equals_the_formula(alpha: float, beta: float, temperature: float) -> None:
    student, teacher, target = case()
    expected = []
    for s, t, y in zip(
        student.numpy() / temperature, teacher.numpy() / temperature, target.tolist(), strict=True
    ):
        top, label = softmax(t).max(), softmax(s)[y]
        confidence = divergence(np.array([top, 1 - top]), np.array([label, 1 - label]))
        below = [c for c in range(5) if t[c] < t[y]]
        correlation = divergence(softmax(t[below]), softmax(s[below])) if below else 0.0
        expected.append(temperature**2 * (alpha * confidence + beta * correlation))
    values = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        rld_loss(student, teacher, target, alpha, beta, temperature, "none"), values
    )
    torch.testing.assert_close(
        RLD(alpha, beta, temperature)({"logits": student}, {"logits": teacher}, {"label": target}),
        values,
    )


def test_equals_dkd_for_a_correct_teacher() -> None:
    student, teacher, _ = case()
    torch.testing.assert_close(
        rld_loss(student, teacher, teacher.argmax(-1)),
        dkd_loss(student, teacher, teacher.argmax(-1)),
    )


def test_a_label_that_the_teacher_ranks_last_has_neither_correlation_nor_gradient() -> None:
    student, teacher, _ = case()
    student.requires_grad_()
    values = rld_loss(student, teacher, teacher.argmin(-1), alpha=0.0, reduction="none")
    assert (values == 0).all()
    assert (torch.autograd.grad(values.sum(), student)[0] == 0).all()


def test_items_without_a_label_do_not_count() -> None:
    student, teacher, target = case()
    half = torch.where(torch.arange(6) < 4, target, -100)
    torch.testing.assert_close(
        rld_loss(student, teacher, half), rld_loss(student[:4], teacher[:4], target[:4])
    )


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(rld_loss, fullgraph=True, backend="eager")(*case()), rld_loss(*case())
    )
