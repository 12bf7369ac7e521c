"""Sinkhorn distance against loops over matrices of lists."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.sinkd import sinkd_loss

STUDENT = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, -2.0], [0.1, 0.7, 0.2]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7], [0.2, 2.0, -1.0], [-1.0, 0.0, 0.5]], dtype=torch.float64)


def by_hand(temperature: float, epsilon: float, iterations: int) -> float:
    rows = [(side / temperature).softmax(-1).tolist() for side in (STUDENT, TEACHER)]
    cost = [
        [sum(abs(a - b) for a, b in zip(one, other, strict=True)) for other in rows[1]]
        for one in rows[0]
    ]
    plan = [[math.exp(-value / epsilon) for value in row] for row in cost]
    size = range(len(plan))
    for _ in range(iterations):
        plan = [[value / sum(row) for value in row] for row in plan]
        columns = [sum(plan[i][j] for i in size) for j in size]
        plan = [[plan[i][j] / columns[j] for j in size] for i in size]
    return sum(plan[i][j] * cost[i][j] for i in size for j in size) / len(plan)


@pytest.mark.parametrize(
    ("temperature", "epsilon", "iterations"), [(2.0, 0.1, 20), (1.0, 0.5, 1), (4.0, 0.05, 7)]
)
def test_values_equal_plain_loops(temperature: float, epsilon: float, iterations: int) -> None:
    value = sinkd_loss(STUDENT, TEACHER, temperature, epsilon, iterations)
    assert float(value) == pytest.approx(by_hand(temperature, epsilon, iterations), rel=1e-9)


def test_gradients_equal_central_differences() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: sinkd_loss(logits, TEACHER), student)


def test_one_item_gives_the_l1_distance() -> None:
    value = sinkd_loss(STUDENT[:1], TEACHER[:1], 1.0)
    expected = (STUDENT[0].softmax(0) - TEACHER[0].softmax(0)).abs().sum()
    assert torch.allclose(value, expected)


def test_gradients_are_finite_at_a_match() -> None:
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sinkd_loss(student, STUDENT), student)
    assert torch.isfinite(gradient).all()
