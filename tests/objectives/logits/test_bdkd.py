"""Balanced divergences against sums over lists of probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.bdkd import bdkd_loss
from instil.objectives.logits.symmetric_kl import symmetric_kl_loss

STUDENT = torch.tensor([[0.3, -1.0, 3.0, 0.5], [0.5, 0.0, -0.2, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 4.0, -1.0, 0.0]], dtype=torch.float64)
"""The student is more confident than the teacher in the first row, and less in the second row."""


def entropy(row: list[float]) -> float:
    return -sum(value * math.log(value) for value in row)


def kl(first: list[float], second: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("factor", "temperature"), [(3.0, 1.0), (2.0, 2.0), (1.0, 1.0)])
def test_values_agree_with_plain_lists(factor: float, temperature: float) -> None:
    values = bdkd_loss(STUDENT, TEACHER, factor, temperature, reduction="none")
    expected = []
    directions = []
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        q = (student / temperature).softmax(-1).tolist()
        p = (teacher / temperature).softmax(-1).tolist()
        forward = factor if entropy(p) > entropy(q) else 1.0
        reverse = factor if entropy(q) > entropy(p) else 1.0
        expected.append(temperature**2 * (forward * kl(p, q) + reverse * kl(q, p)))
        directions.append(entropy(p) > entropy(q))
    assert directions == [True, False]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


def test_gradients_agree_with_central_differences() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: bdkd_loss(logits, TEACHER, 2.5, 1.5), student)


def test_factor_one_is_twice_the_symmetric_kl() -> None:
    expected = 2 * symmetric_kl_loss(STUDENT, TEACHER, 0.5, reduction="none")
    assert torch.allclose(bdkd_loss(STUDENT, TEACHER, 1.0, reduction="none"), expected)


def test_equal_entropies_emphasise_neither_direction() -> None:
    student, teacher = STUDENT[:1, :2], STUDENT[:1, :2].flip(-1)
    value = bdkd_loss(student, teacher, 7.0)
    assert torch.allclose(value, bdkd_loss(student, teacher, 1.0))


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bdkd_loss\.factor: Expected a number of at least 1"):
        bdkd_loss(STUDENT, TEACHER, 0.5)
