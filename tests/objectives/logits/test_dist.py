"""DIST against numpy's correlation, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.dist import DIST, dist_loss


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(*shape, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )


@pytest.mark.parametrize(("beta", "gamma", "temperature"), [(1.0, 1.0, 1.0), (2.0, 0.5, 4.0)])
def test_equals_the_formula(beta: float, gamma: float, temperature: float) -> None:
    student, teacher = pair(6, 5)
    a, b = ((logits / temperature).exp().numpy() for logits in (student, teacher))
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    inter = 1 - np.mean([np.corrcoef(a[i], b[i])[0, 1] for i in range(6)])
    intra = 1 - np.mean([np.corrcoef(a[:, c], b[:, c])[0, 1] for c in range(5)])
    expected = torch.tensor(beta * inter + gamma * intra, dtype=torch.float64)
    tolerance = {"rtol": 1e-5, "atol": 1e-6}  # the epsilon of the denominator
    torch.testing.assert_close(
        dist_loss(student, teacher, beta, gamma, temperature, scale=False), expected, **tolerance
    )
    torch.testing.assert_close(
        dist_loss(student, teacher, beta, gamma, temperature),
        expected * temperature**2,
        **tolerance,
    )
    loss = DIST(beta, gamma, temperature)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(loss, expected * temperature**2, **tolerance)


def test_is_zero_at_a_match_and_ignores_the_order_of_items() -> None:
    student, teacher = pair(6, 5)
    assert dist_loss(teacher, teacher) == pytest.approx(0.0, abs=1e-6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(
        dist_loss(student[order], teacher[order]), dist_loss(student, teacher)
    )


def test_pixels_and_tokens_are_items() -> None:
    student, teacher = pair(2, 3, 4, 5)
    torch.testing.assert_close(
        dist_loss(student, teacher), dist_loss(student.reshape(24, 5), teacher.reshape(24, 5))
    )


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        dist_loss(torch.zeros(3, 1), torch.zeros(3, 1))
