"""Mean absolute error of logits against a plain loop."""

from __future__ import annotations

import pytest
import torch

from instil.objectives.logits.logit_mae import LogitMAE, logit_mae_loss


def test_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 7, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    rows = [
        sum(abs(s - t) for s, t in zip(*both, strict=True)) / 7
        for both in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(logit_mae_loss(student, teacher, "none"), expected)
    torch.testing.assert_close(logit_mae_loss(student, teacher), expected.mean())
    torch.testing.assert_close(LogitMAE()({"logits": student}, {"logits": teacher}, {}), expected)


def test_the_gradient_is_as_large_near_the_match_as_far_from_it() -> None:
    teacher = torch.zeros(2, 3)
    near, far = (torch.full((2, 3), apart, requires_grad=True) for apart in (1e-3, 1e3))
    (logit_mae_loss(near, teacher) + logit_mae_loss(far, teacher)).backward()
    assert torch.equal(near.grad, far.grad)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same items and classes"):
        logit_mae_loss(torch.zeros(2, 3), torch.zeros(3, 3))
