"""Tf-KD against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.labels.label_smoothing import label_smoothing_loss
from instil.objectives.logits.tf_kd import TfKD, tf_kd_loss


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("soften", [False, True])
@pytest.mark.parametrize(("classes", "correct", "temperature"), [(6, 0.99, 20.0), (2, 0.8, 0.5)])
def test_equals_the_formula(classes: int, correct: float, temperature: float, soften: bool) -> None:
    student = 2 * torch.randn(
        4, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    target = torch.tensor([0, classes - 1, 1, 0])
    expected = []
    for row, label in zip(student.tolist(), target.tolist(), strict=True):
        u = [
            correct if index == label else (1 - correct) / (classes - 1) for index in range(classes)
        ]
        p, q = (
            softmax([value / temperature for value in u]),
            softmax([z / (temperature if soften else 1) for z in row]),
        )
        expected.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    values = TfKD(correct, temperature, soften)({"logits": student}, {}, {"label": target})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(
        tf_kd_loss(student, target, correct, temperature, soften), values.mean()
    )
    compiled = torch.compile(tf_kd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, target), tf_kd_loss(student, target))


def test_the_gradient_equals_that_of_label_smoothing() -> None:
    """A virtual teacher with label probability c equals label smoothing with 1 - c."""
    student = torch.randn(
        5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True
    )
    target = torch.tensor([0, 1, 2, 3, -100])
    correct = math.exp(0.9) / (math.exp(0.9) + 3 * math.exp(0.1 / 3))
    ours = torch.autograd.grad(tf_kd_loss(student, target, 0.9, 1.0), student)[0]
    smoothed = torch.autograd.grad(
        label_smoothing_loss(student, target, 1 - correct, others_only=True), student
    )[0]
    torch.testing.assert_close(ours, smoothed)
    assert ours[4].abs().sum() == 0


def test_one_class_raises() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        tf_kd_loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
