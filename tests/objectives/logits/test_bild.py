"""Bi-directional logits difference against loops over pairs."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from instil.objectives.logits.bild import bild_loss

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)


def pair_distribution(logits: list[float], order: list[int], temperature: float) -> list[float]:
    exponents = [math.exp((logits[i] - logits[j]) / temperature) for i, j in combinations(order, 2)]
    return [value / sum(exponents) for value in exponents]


def by_hand(student: list[float], teacher: list[float], top_k: int, temperature: float) -> float:
    total = 0.0
    for leading in (teacher, student):
        order = sorted(range(len(leading)), key=lambda index: -leading[index])[:top_k]
        p = pair_distribution(teacher, order, temperature)
        q = pair_distribution(student, order, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total


@pytest.mark.parametrize(("top_k", "temperature"), [(3, 1.0), (8, 3.0), (2, 2.0)])
def test_values_agree_with_loops_over_pairs(top_k: int, temperature: float) -> None:
    values = bild_loss(STUDENT, TEACHER, top_k, temperature, "none")
    rows = zip(STUDENT.tolist(), TEACHER.tolist(), strict=True)
    expected = [by_hand(student, teacher, top_k, temperature) for student, teacher in rows]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


def test_gradients_agree_with_central_differences() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: bild_loss(z, TEACHER, 3, 2.0, "none"), student)


def test_pairs_with_an_impossible_class_are_excluded() -> None:
    padding = torch.full((2, 1), -torch.inf, dtype=torch.float64)
    student = STUDENT.clone().requires_grad_()
    padded = bild_loss(
        torch.cat([student, padding], 1), torch.cat([TEACHER, padding], 1), 5, 3.0, "none"
    )
    assert torch.allclose(padded, bild_loss(STUDENT, TEACHER, 4, 3.0, "none"))
    (gradient,) = torch.autograd.grad(padded.sum(), student)
    assert torch.isfinite(gradient).all()


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="1 classes"):
        bild_loss(STUDENT[:, :1], TEACHER[:, :1])
