"""Adaptive alpha-divergence against sums over lists of probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.alphanet import alphanet_loss
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)
ORDERS = [(-1.0, 1.0, 5.0), (-1.0, 1.0, 1.5), (-0.5, 0.5, 2.0), (0.0, 2.0, 3.0), (0.0, 1.0, 0.9)]
NO_CLIP = 1e30


def divergence(p: list[float], q: list[float], alpha: float, clip: float) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if alpha == 1:
            total += a * math.log(a / b)
        elif alpha == 0:
            total -= b * math.log(min(a / b, clip))
        else:
            total += b * (min((a / b) ** alpha, clip) - 1) / alpha / (alpha - 1)
    return total


def surrogate_slope(p: list[float], q: list[float], alpha: float, clip: float) -> list[float]:
    """Derivative of the surrogate with respect to the student's logits."""
    weights = []
    for a, b in zip(p, q, strict=True):
        if alpha == 1:
            weights.append(a)
        elif alpha == 0:
            weights.append(b * (math.log(min(a / b, clip)) - 1))
        else:
            power = min((a / b) ** alpha, clip)
            weights.append(b * (power / alpha + 1 / alpha / (alpha - 1)))
    return [b * sum(weights) - weight for b, weight in zip(q, weights, strict=True)]


@pytest.mark.parametrize(("low", "high", "clip"), ORDERS)
def test_values_and_gradients_agree_with_plain_lists(low: float, high: float, clip: float) -> None:
    student = STUDENT.clone().requires_grad_()
    values = alphanet_loss(student, TEACHER, low, high, clip, reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), student)
    rows = zip(TEACHER.softmax(-1).tolist(), STUDENT.softmax(-1).tolist(), strict=True)
    for i, (p, q) in enumerate(rows):
        alpha = max((low, high), key=lambda order: divergence(p, q, order, clip))
        assert float(values[i].detach()) == pytest.approx(divergence(p, q, alpha, clip), rel=1e-9)
        expected = surrogate_slope(p, q, alpha, clip)
        assert gradient[i].tolist() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("alpha", [-1.0, -0.3, 0.0, 0.4, 1.0, 1.7])
def test_without_a_clip_the_gradient_agrees_with_central_differences(alpha: float) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: alphanet_loss(logits, TEACHER, alpha, alpha, NO_CLIP, 2.0), student
    )


def test_the_limits_are_the_two_kl_divergences() -> None:
    forward = alphanet_loss(STUDENT, TEACHER, 1.0, 1.0, reduction="none")
    reverse = alphanet_loss(STUDENT, TEACHER, 0.0, 0.0, NO_CLIP, reduction="none")
    assert torch.allclose(forward, forward_kl_loss(STUDENT, TEACHER, reduction="none"))
    assert torch.allclose(reverse, reverse_kl_loss(STUDENT, TEACHER, reduction="none"))


def test_a_class_impossible_on_both_sides_adds_nothing() -> None:
    column = torch.full((2, 1), -torch.inf, dtype=torch.float64)
    student = torch.cat([STUDENT, column], -1).requires_grad_()
    values = alphanet_loss(student, torch.cat([TEACHER, column], -1), reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert torch.allclose(values, alphanet_loss(STUDENT, TEACHER, reduction="none"))
    assert torch.isfinite(gradient).all()


def test_a_class_impossible_for_the_teacher_is_bounded_by_the_clip() -> None:
    teacher = TEACHER.clone()
    teacher[:, 0] = -torch.inf
    values = alphanet_loss(STUDENT, teacher, -1.0, -1.0, 5.0, reduction="none")
    assert torch.isfinite(values).all()
    assert bool((values <= 2.0).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha_min": math.nan}, "alpha_min, alpha_max: an order is not finite"),
        ({"clip": 0.0}, "alphanet_loss.clip: Expected a number above 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alphanet_loss(STUDENT, TEACHER, **options)
