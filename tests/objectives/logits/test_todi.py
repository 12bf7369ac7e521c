"""Token-wise distillation against an explicit sum over classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.symmetric_kl import symmetric_kl_loss
from instil.objectives.logits.todi import ToDi, todi_loss

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)


def by_hand(student: Tensor, teacher: Tensor, beta: float, temperature: float) -> list[float]:
    """Loss of each row by the definition in the paper."""
    pairs = zip(
        (student / temperature).softmax(-1).tolist(),
        (teacher / temperature).softmax(-1).tolist(),
        strict=True,
    )
    rows = []
    for student_row, teacher_row in pairs:
        total = 0.0
        for q, p in zip(student_row, teacher_row, strict=True):
            weight = 1 / (1 + (q / p) ** beta)
            total += weight * p * math.log(p / q) + (1 - weight) * q * math.log(q / p)
        rows.append(total)
    return rows


@pytest.mark.parametrize(("beta", "temperature"), [(1.0, 1.0), (0.0, 1.0), (2.5, 2.0)])
def test_values_equal_the_definition(beta: float, temperature: float) -> None:
    values = todi_loss(STUDENT, TEACHER, beta, temperature, scale=False, reduction="none")
    expected = by_hand(STUDENT, TEACHER, beta, temperature)
    assert values.tolist() == pytest.approx(expected, rel=1e-10)


def test_the_weights_are_constants_for_the_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(todi_loss(student, TEACHER, reduction="none").sum(), student)
    log_q, log_p = student.log_softmax(-1), TEACHER.log_softmax(-1)
    weight = torch.sigmoid(log_p - log_q).detach()
    forward = weight * log_p.exp() * (log_p - log_q)
    reverse = (1 - weight) * log_q.exp() * (log_q - log_p)
    (expected,) = torch.autograd.grad((forward + reverse).sum(), student)
    assert torch.allclose(gradient, expected, rtol=1e-10)


def test_beta_zero_is_half_of_each_divergence() -> None:
    expected = symmetric_kl_loss(STUDENT, TEACHER, 0.5, reduction="none")
    assert torch.allclose(todi_loss(STUDENT, TEACHER, 0.0, reduction="none"), expected)


def test_padding_of_the_vocabulary_adds_nothing() -> None:
    padded = [torch.cat([side, torch.full((2, 3), 7.0)], -1) for side in (STUDENT, TEACHER)]
    objective = ToDi(vocabulary=4)
    outputs = [{"logits": side} for side in padded]
    objective.resolve(*outputs)
    values = objective(*outputs, {"index": torch.arange(2)})
    assert torch.allclose(values, todi_loss(STUDENT, TEACHER, reduction="none"))
