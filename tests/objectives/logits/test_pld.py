"""PLD against a loop over its choices."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.pld import PLD, pld_loss


@pytest.mark.parametrize(("classes", "temperature"), [(2, 1.0), (5, 1.0), (5, 4.0)])
def test_equals_the_formula(classes: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(4, classes, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    target = torch.tensor([0, 1, classes - 1, 0])
    expected = []
    for s, t, label in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        order = [
            label,
            *sorted(
                (index for index in range(classes) if index != label),
                key=lambda index: -t[index],
            ),
        ]
        total = sum(math.exp(z / temperature) for z in t)
        value = 0.0
        for rank, choice in enumerate(order):
            remaining = sum(math.exp(s[other]) for other in order[rank:])
            value += math.exp(t[choice] / temperature) / total * (math.log(remaining) - s[choice])
        expected.append(value)
    values = PLD(temperature)({"logits": student}, {"logits": teacher}, {"label": target})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(pld_loss(student, teacher, target, temperature), values.mean())
    compiled = torch.compile(pld_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, target), pld_loss(student, teacher, target)
    )


def test_a_confident_teacher_gives_the_cross_entropy() -> None:
    student, target = torch.randn(4, 5), torch.tensor([0, 3, -100, 4])
    teacher = torch.full((4, 5), -40.0).scatter(1, target.clamp_min(0)[:, None], 40.0)
    torch.testing.assert_close(
        pld_loss(student, teacher, target), torch.nn.functional.cross_entropy(student, target)
    )


def test_one_class_raises() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        pld_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
