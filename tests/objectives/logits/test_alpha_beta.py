"""Alpha-beta divergence: its limits, against formulas written out and against the general case."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.alpha_beta import alpha_beta_loss
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)


def by_hand(student: Tensor, teacher: Tensor, a: float, b: float) -> list[float]:
    """Compute the divergence of each row, class by class, from the definition in the paper."""
    rows = []
    for q_row, p_row in zip(
        student.softmax(-1).tolist(), teacher.softmax(-1).tolist(), strict=True
    ):
        total = 0.0
        for q, p in zip(q_row, p_row, strict=True):
            if a == 0 and b == 0:
                total += 0.5 * (math.log(p) - math.log(q)) ** 2
            elif b == 0:
                total += (p**a * math.log(p**a / q**a) - p**a + q**a) / a**2
            elif a == 0:
                total += (q**b * math.log(q**b / p**b) - q**b + p**b) / b**2
            elif a == -b:
                total += (math.log(q**a / p**a) + p**a / q**a - 1) / a**2
            else:
                mixed = a / (a + b) * p ** (a + b) + b / (a + b) * q ** (a + b)
                total -= (p**a * q**b - mixed) / (a * b)
        rows.append(total)
    return rows


EXPONENTS = [(0, 0), (0.7, 0), (0, 0.6), (0.5, -0.5), (-0.5, 0.5), (-0.3, 0.8), (1.4, -0.2), (2, 1)]


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_values_agree_with_the_definition(alpha: float, beta: float) -> None:
    values = alpha_beta_loss(STUDENT, TEACHER, alpha, beta, reduction="none")
    assert values.tolist() == pytest.approx(by_hand(STUDENT, TEACHER, alpha, beta), rel=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_gradients_agree_with_central_differences(alpha: float, beta: float) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: alpha_beta_loss(logits, TEACHER, alpha, beta, 1.5, reduction="none"), student
    )


@pytest.mark.parametrize(
    ("limit", "near"),
    [((0.7, 0), (0.7, 1e-6)), ((0, 0.6), (1e-6, 0.6)), ((0.5, -0.5), (0.5, -0.5 + 1e-6))],
)
def test_the_general_formula_approaches_the_limits(
    limit: tuple[float, float], near: tuple[float, float]
) -> None:
    exact = alpha_beta_loss(STUDENT, TEACHER, *limit, reduction="none")
    general = alpha_beta_loss(STUDENT, TEACHER, *near, reduction="none")
    assert torch.allclose(exact, general, rtol=1e-4)


def test_the_kl_divergences_are_members() -> None:
    forward = forward_kl_loss(STUDENT, TEACHER, reduction="none")
    reverse = reverse_kl_loss(STUDENT, TEACHER, reduction="none")
    assert torch.allclose(alpha_beta_loss(STUDENT, TEACHER, 1, 0, reduction="none"), forward)
    assert torch.allclose(alpha_beta_loss(STUDENT, TEACHER, 0, 1, reduction="none"), reverse)


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_a_class_that_both_sides_exclude_adds_nothing(alpha: float, beta: float) -> None:
    def padded(logits: Tensor) -> Tensor:
        return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], -1)

    student = STUDENT.clone().requires_grad_()
    values = alpha_beta_loss(padded(student), padded(TEACHER), alpha, beta, reduction="none")
    expected = alpha_beta_loss(STUDENT, TEACHER, alpha, beta, reduction="none")
    assert torch.allclose(values, expected)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert torch.isfinite(gradient).all()


def test_an_infinite_exponent_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected finite numbers"):
        alpha_beta_loss(STUDENT, TEACHER, math.inf, 0.5)
