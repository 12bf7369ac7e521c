"""Knowledge adjustment against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.probability_shift import ProbabilityShift, probability_shift_loss


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two items that the teacher classifies correctly and three that it does not."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    top = teacher.argmax(1)
    return student, teacher, (top + torch.tensor([0, 1, 2, 3, 0])) % 4


@pytest.mark.parametrize("correction", ["shift", "smooth"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_the_formula(correction: str, temperature: float) -> None:
    student, teacher, target = inputs()
    expected = []
    for s, t, label in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        top = p.index(max(p))
        if top != label and correction == "shift":
            p[top], p[label] = p[label], p[top]
        elif top != label:
            p = [0.2 / 4 + (0.8 if index == label else 0) for index in range(4)]
        expected.append(
            temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        )
    values = ProbabilityShift(temperature, correction, 0.2)(
        {"logits": student}, {"logits": teacher}, {"label": target}
    )  # type: ignore[arg-type]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(
        probability_shift_loss(student, teacher, target, temperature, correction, 0.2),
        values.mean(),
    )


@pytest.mark.parametrize("correction", ["shift", "smooth"])
def test_correct_teacher_predictions_are_unchanged_and_unlabelled_items_do_not_count(
    correction: str,
) -> None:
    student, teacher, _ = inputs()
    right = teacher.argmax(1)
    torch.testing.assert_close(
        probability_shift_loss(student, teacher, right, correction=correction),
        kd_loss(student, teacher, temperature=4.0),
    )
    right[2] = -100
    rest = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(
        probability_shift_loss(student, teacher, right, correction=correction),
        kd_loss(student[rest], teacher[rest], temperature=4.0),
    )


def test_compiles_without_graph_breaks() -> None:
    compiled = torch.compile(probability_shift_loss, fullgraph=True, backend="eager")
    for correction in ("shift", "smooth"):
        torch.testing.assert_close(
            compiled(*inputs(), correction=correction),
            probability_shift_loss(*inputs(), correction=correction),
        )


def test_invalid_input_raises() -> None:
    student, teacher, target = inputs()
    with pytest.raises(ValueError, match=r"correction: unknown value.*got 'swap'"):
        probability_shift_loss(student, teacher, target, correction="swap")
    with pytest.raises(ValueError, match="defined for 2 or more"):
        probability_shift_loss(student[:, :1], teacher[:, :1], target)
