"""GOLD against a plain loop, and its gradient against finite differences, for beta in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.logits.gold import PROBABILITY_FLOOR, gold_loss


def jsd(student: np.ndarray, teacher: np.ndarray, beta: float) -> float:
    total = 0.0
    for q, p in zip(
        np.maximum(student, PROBABILITY_FLOOR), np.maximum(teacher, PROBABILITY_FLOOR), strict=True
    ):
        middle = beta * p + (1 - beta) * q
        if beta == 0:
            total += p * math.log(p / q)
        elif beta == 1:
            total += q * math.log(q / p)
        else:
            total += beta * p * math.log(p / middle) + (1 - beta) * q * math.log(q / middle)
    return total


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_agrees_with_a_plain_loop(beta: float) -> None:
    student, teacher = (
        torch.randn(5, 6, dtype=torch.float64),
        torch.randn(5, 7, dtype=torch.float64),
    )
    student[0, 0] = -40  # less likely than the least that counts
    same = torch.tensor([[6, 0], [1, 3], [2, 2]])
    values = gold_loss(student, teacher, same, beta, reduction="none")
    student_probability, teacher_probability = (
        student.softmax(-1).numpy(),
        teacher.softmax(-1).numpy(),
    )
    for n in range(5):
        rest = [
            np.sort(np.delete(side[n], same[:, column]))[::-1]
            for side, column in ((student_probability, 1), (teacher_probability, 0))
        ]
        rest = [np.pad(side, (0, 4 - len(side))) for side in rest]
        expected = (
            3
            / 7
            * jsd(student_probability[n, same[:, 1]], teacher_probability[n, same[:, 0]], beta)
            + 4 / 7 * np.abs(rest[0] - rest[1]).sum()
        )
        assert np.isclose(values[n], expected, rtol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_gradients_of_any_order(beta: float) -> None:
    student, teacher = (
        torch.randn(3, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 5, dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(
        lambda logits: gold_loss(logits, teacher, beta=beta), (student,)
    )
    assert torch.autograd.gradgradcheck(
        lambda logits: gold_loss(logits, teacher, beta=beta), (student,)
    )
