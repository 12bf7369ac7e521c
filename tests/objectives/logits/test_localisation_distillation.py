"""Localisation distillation against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.logits.localisation_distillation import (
    LocalisationDistillation,
    localisation_distillation_loss,
)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(("edges", "bins", "temperature"), [(4, 5, 10.0), (4, 2, 1.0), (1, 6, 3.0)])
def test_equals_the_formula(edges: int, bins: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(2, 3, edges * bins, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    expected = []
    for s, t in zip(student.reshape(6, -1).tolist(), teacher.reshape(6, -1).tolist(), strict=True):
        value = 0.0
        for edge in range(edges):
            rows = (side[edge * bins : (edge + 1) * bins] for side in (s, t))
            q, p = (softmax(row, temperature) for row in rows)
            value += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected.append(value)
    values = localisation_distillation_loss(student, teacher, edges, temperature, "none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64).view(2, 3))
    torch.testing.assert_close(
        localisation_distillation_loss(student, teacher, edges, temperature), values.mean()
    )
    compiled = torch.compile(localisation_distillation_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, teacher, edges, temperature), values.mean())


def test_locations_that_are_not_valid_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        {"logits": torch.zeros(2, 3, 9), "box_logits": torch.randn(2, 3, 20, generator=generator)}
        for _ in range(2)
    )
    valid = torch.tensor([[True, False, True], [False, False, True]])
    objectives = Objectives({"ld": LocalisationDistillation()})
    objectives.build(student, teacher)
    loss = objectives(student, teacher, {"image": torch.zeros(2, 1), "valid": valid}).losses["ld"]
    torch.testing.assert_close(
        loss,
        localisation_distillation_loss(student["box_logits"][valid], teacher["box_logits"][valid]),
    )


@pytest.mark.parametrize("width", [7, 4])
def test_logits_that_cannot_be_split_into_edges_raise(width: int) -> None:
    with pytest.raises(ValueError, match=f"{width} logits cannot be split into 4 edges"):
        localisation_distillation_loss(torch.zeros(3, width), torch.zeros(3, width))
