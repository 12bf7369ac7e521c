"""Spherical knowledge distillation against lists of numbers."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.spherical_kd import spherical_kd_loss, spherical_logits

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)


def softmax_on_sphere(logits: list[float], multiplier: float, temperature: float) -> list[float]:
    mean = sum(logits) / len(logits)
    variance = sum((value - mean) ** 2 for value in logits) / len(logits)
    scale = multiplier / math.sqrt(variance + 1e-7) / temperature
    exponents = [math.exp((value - mean) * scale) for value in logits]
    return [value / sum(exponents) for value in exponents]


@pytest.mark.parametrize(("multiplier", "temperature"), [(2.0, 4.0), (0.5, 1.0)])
def test_values_equal_plain_lists(multiplier: float, temperature: float) -> None:
    values = spherical_kd_loss(STUDENT, TEACHER, multiplier, temperature, "none")
    expected = []
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        p = softmax_on_sphere(teacher, multiplier, temperature)
        q = softmax_on_sphere(student, multiplier, temperature)
        terms = [a * math.log(a / b) for a, b in zip(p, q, strict=True)]
        expected.append(temperature**2 * sum(terms))
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


def test_shift_and_scale_of_the_student_change_nothing() -> None:
    value = spherical_kd_loss(STUDENT, TEACHER)
    assert torch.allclose(spherical_kd_loss(5 * STUDENT + 3, TEACHER), value, rtol=1e-5)


def test_all_items_have_one_length() -> None:
    lengths = spherical_logits(STUDENT, 3.0).norm(dim=-1)
    assert torch.allclose(lengths, torch.full_like(lengths, 3.0 * 2.0), rtol=1e-6)


def test_gradients_equal_central_differences() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: spherical_kd_loss(z, TEACHER, 2.0, 3.0), student)


def test_two_classes_raise() -> None:
    with pytest.raises(ValueError, match="Expected 3 classes or more"):
        spherical_kd_loss(STUDENT[:, :2], TEACHER[:, :2])
