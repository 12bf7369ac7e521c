"""PS-KD against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives, Schedule
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.ps_kd import PSKD, ps_kd_loss


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_equals_the_formula(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, past = (
        2 * torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    target = torch.tensor([0, 4, 1, 2])
    expected = []
    for s, t, label in zip(student.tolist(), past.tolist(), target.tolist(), strict=True):
        soft = [alpha * p + (1 - alpha) * (index == label) for index, p in enumerate(softmax(t))]
        expected.append(-sum(p * math.log(q) for p, q in zip(soft, softmax(s), strict=True)))
    values = PSKD(alpha)({"logits": student}, {"logits": past}, {"label": target})
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(ps_kd_loss(student, past, target, alpha), values.mean())
    compiled = torch.compile(ps_kd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, past, target, alpha), values.mean())


def test_a_schedule_increases_the_weight_of_the_past() -> None:
    generator = torch.Generator().manual_seed(0)
    student, past = ({"logits": torch.randn(4, 5, generator=generator)} for _ in range(2))
    batch = {"label": torch.tensor([0, 4, -100, 2])}
    objectives = Objectives({"it": PSKD(Schedule(0.0, 0.8))})
    objectives.build(student, past)
    for progress, alpha in ((0.0, 0.0), (0.5, 0.4), (1.0, 0.8)):
        loss = objectives(student, past, batch | {"progress": torch.tensor(progress)}).losses["it"]
        torch.testing.assert_close(
            loss, ps_kd_loss(student["logits"], past["logits"], batch["label"], alpha)
        )
    torch.testing.assert_close(
        ps_kd_loss(student["logits"], past["logits"], batch["label"], 0.0),
        cross_entropy_loss(student["logits"], batch["label"]),
    )


def test_a_class_with_past_probability_zero_is_finite() -> None:
    student = torch.tensor([[1.0, -torch.inf, 0.5]])
    assert torch.isfinite(ps_kd_loss(student, student, torch.tensor([0])))
