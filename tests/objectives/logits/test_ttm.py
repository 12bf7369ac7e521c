"""TTM and its weighted form against a plain loop, and the identities of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.ttm import TTM, ttm_loss


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 6, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, teacher


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_equals_the_formula(gamma: float, weighted: bool) -> None:
    student, teacher = pair()
    expected = []
    for s, t in zip(np.exp(student.numpy()), np.exp(teacher.numpy()), strict=True):
        powered = (t / t.sum()) ** gamma
        p, q = powered / powered.sum(), s / s.sum()
        expected.append(
            sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
            * (powered.sum() if weighted else 1)
        )
    expected_values = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ttm_loss(student, teacher, gamma, weighted, "none"), expected_values)
    torch.testing.assert_close(
        TTM(gamma, weighted)({"logits": student}, {"logits": teacher}, {}), expected_values
    )


def test_a_power_of_one_equals_kd_with_weight_one() -> None:
    student, teacher = pair()
    torch.testing.assert_close(ttm_loss(student, teacher, 1.0), kd_loss(student, teacher, 1.0))
    torch.testing.assert_close(
        ttm_loss(student, teacher, 1.0, weighted=True), kd_loss(student, teacher, 1.0)
    )


def test_a_power_is_a_temperature_of_the_teacher_only() -> None:
    student, teacher = pair()
    torch.testing.assert_close(
        ttm_loss(student, teacher, 0.25), kd_loss(4 * student, teacher, 4.0, scale=False)
    )
    torch.testing.assert_close(
        ttm_loss(teacher / 4, teacher, 0.25), torch.zeros((), dtype=torch.float64)
    )


def test_one_class_raises() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        ttm_loss(torch.zeros(3, 1), torch.zeros(3, 1))


def test_compiles() -> None:
    torch.testing.assert_close(
        torch.compile(ttm_loss, fullgraph=True, backend="eager")(*pair(), weighted=True),
        ttm_loss(*pair(), weighted=True),
    )
