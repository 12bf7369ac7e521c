"""Mean squared error of logits against a plain loop."""

from __future__ import annotations

import pytest
import torch

from instil.objectives.logits.logit_mse import LogitMSE, logit_mse_loss


@pytest.mark.parametrize("smooth", [False, True])
def test_equals_the_formula(smooth: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 7, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    expected = []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        gaps = [abs(s - t) for s, t in zip(s_row, t_row, strict=True)]
        costs = [(gap**2 / 2 if gap < 1 else gap - 0.5) if smooth else gap**2 for gap in gaps]
        expected.append(sum(costs) / len(costs))
    torch.testing.assert_close(
        logit_mse_loss(student, teacher, smooth, "none"),
        torch.tensor(expected, dtype=torch.float64),
    )
    torch.testing.assert_close(
        logit_mse_loss(student, teacher, smooth), torch.tensor(expected, dtype=torch.float64).mean()
    )
    values = LogitMSE(smooth)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_it_depends_on_the_mean_of_the_logits() -> None:
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logit_mse_loss(teacher + 2, teacher), torch.tensor(4.0))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same items and classes"):
        logit_mse_loss(torch.zeros(2, 3), torch.zeros(3, 3))
