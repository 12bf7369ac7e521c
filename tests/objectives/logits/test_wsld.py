"""WSLD against a plain loop, and properties of its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.wsld import WSLD, wsld_loss, wsld_weights


def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 6, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher, torch.tensor([0, 1, 5, 2, 1])


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_equals_the_formula(temperature: float) -> None:
    student, teacher, target = case()
    expected = []
    for s, t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        ratio = np.log(softmax(s)[y]) / (np.log(softmax(t)[y]) - 1e-7)
        p, q = softmax(t / temperature), softmax(s / temperature)
        expected.append(
            (1 - np.exp(-ratio))
            * temperature**2
            * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        )
    expected_values = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        wsld_loss(student, teacher, target, temperature, "none"), expected_values
    )
    torch.testing.assert_close(
        WSLD(temperature)({"logits": student}, {"logits": teacher}, {"label": target}),
        expected_values,
    )


def test_the_weights_have_no_gradient() -> None:
    student, teacher, target = case()
    student.requires_grad_()
    (ours,) = torch.autograd.grad(wsld_loss(student, teacher, target), student)
    (plain,) = torch.autograd.grad(kd_loss(student, teacher, 2.0), student)
    torch.testing.assert_close(ours, plain * wsld_weights(student, teacher, target)[:, None])


def test_a_student_with_more_label_confidence_than_the_teacher_has_weight_zero() -> None:
    sure, unsure, target = (
        torch.tensor([[20.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 1.0, 0.0]]),
        torch.tensor([0]),
    )
    assert wsld_weights(sure, unsure, target) < 1e-3
    assert wsld_weights(unsure, sure, target) > 0.999


def test_items_without_a_label_do_not_count() -> None:
    student, teacher, target = case()
    half = torch.where(torch.arange(5) < 3, target, -100)
    torch.testing.assert_close(
        wsld_loss(student, teacher, half), wsld_loss(student[:3], teacher[:3], target[:3])
    )


def test_compiles() -> None:
    compiled = torch.compile(wsld_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*case()), wsld_loss(*case()))
