"""NKD against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.nkd import NKD, nkd_loss


def shares(row: list[float]) -> list[float]:
    return [math.exp(z) / sum(math.exp(other) for other in row) for z in row]


@pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 1.5), (4.0, 0.5)])
@pytest.mark.parametrize("classes", [2, 6])
def test_equals_the_formula(temperature: float, gamma: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, classes, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    target = torch.tensor([0, 1, classes - 1, 0, 1])
    expected = []
    for s_row, t_row, label in zip(
        student.tolist(), teacher.tolist(), target.tolist(), strict=True
    ):
        others_t, others_s = (
            [z / temperature for i, z in enumerate(row) if i != label] for row in (t_row, s_row)
        )
        rest = -sum(
            p * math.log(q) for p, q in zip(shares(others_t), shares(others_s), strict=True)
        )
        expected.append(
            -shares(t_row)[label] * math.log(shares(s_row)[label]) + gamma * temperature**2 * rest
        )
    torch.testing.assert_close(
        nkd_loss(student, teacher, target, temperature, gamma, "none"),
        torch.tensor(expected, dtype=torch.float64),
    )
    torch.testing.assert_close(
        nkd_loss(student, teacher, target, temperature, gamma),
        torch.tensor(expected, dtype=torch.float64).mean(),
    )
    values = NKD(temperature, gamma)({"logits": student}, {"logits": teacher}, {"label": target})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_items_without_a_label_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 5, generator=generator) for _ in range(2))
    target = torch.tensor([3, -100, 0, -100])
    torch.testing.assert_close(
        nkd_loss(student, teacher, target), nkd_loss(student[::2], teacher[::2], target[::2])
    )


def test_one_class_raises() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        nkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
