"""CTKD against a plain loop, and its reversed gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives, Schedule
from instil.objectives.logits.ctkd import CTKD, ctkd_loss
from instil.testing import sample_outputs


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        2 * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(student: list[float], teacher: list[float], temperature: float) -> float:
    q, p = softmax(student, temperature), softmax(teacher, temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_one_temperature_per_item_equals_the_formula() -> None:
    student, teacher = pair(4, 5)
    temperature = torch.tensor([1.0, 2.5, 4.0, 20.0], dtype=torch.float64)
    expected = [
        divergence(s, t, T)
        for s, t, T in zip(student.tolist(), teacher.tolist(), temperature.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        ctkd_loss(student, teacher, temperature, "none"),
        torch.tensor(expected, dtype=torch.float64),
    )
    whole = ctkd_loss(student, teacher, torch.tensor(2.5, dtype=torch.float64))
    rows = [divergence(s, t, 2.5) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert math.isclose(float(whole), sum(rows) / 4)
    compiled = torch.compile(ctkd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, temperature), ctkd_loss(student, teacher, temperature)
    )


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_temperature_maximises_the_loss_that_the_student_minimises(strength: float) -> None:
    student, teacher = pair(6, 5)
    objective = CTKD(lowest=2.0, span=10.0, strength=strength)
    objective.build({"logits": student}, {"logits": teacher})
    assert objective.level.shape == (1,)
    with torch.no_grad():
        objective.level.fill_(0.4)

    def loss(level: float) -> float:
        temperature = 2 + 10 / (1 + math.exp(-level))
        return (
            sum(
                divergence(s, t, temperature)
                for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
            )
            / 6
        )

    value = objective({"logits": student}, {"logits": teacher}, {}).mean()
    assert math.isclose(float(value.detach()), loss(0.4))
    slope = (loss(0.4 + 1e-5) - loss(0.4 - 1e-5)) / 2e-5
    (gradient,) = torch.autograd.grad(value, objective.level)
    assert float(gradient) == pytest.approx(-strength * slope, rel=1e-6, abs=1e-9)


def test_the_instance_form_reads_both_sides_and_gives_the_student_no_gradient() -> None:
    student, teacher = pair(3, 4, 5)
    objective = CTKD("instance", lowest=2.0, span=10.0, width=7).double()
    objective.build({"logits": student}, {"logits": teacher})
    temperature = objective.temperature(student, teacher)
    assert temperature.shape == (3, 4)
    assert ((temperature > 2) & (temperature < 12)).all()
    assert len(temperature.flatten().unique()) == 12
    hidden = torch.relu(
        torch.cat([student, teacher], -1) @ objective.network[0].weight.T
        + objective.network[0].bias
    )
    level = (hidden @ objective.network[2].weight.T + objective.network[2].bias).squeeze(-1)
    torch.testing.assert_close(temperature, 2 + 10 / (1 + torch.exp(-level)))
    student = student.requires_grad_()
    through = torch.autograd.grad(
        objective({"logits": student}, {"logits": teacher}, {}).sum(), student
    )[0]
    fixed = torch.autograd.grad(
        ctkd_loss(student, teacher, temperature.detach(), "none").sum(), student
    )[0]
    torch.testing.assert_close(through, fixed)


def test_the_strength_may_follow_a_schedule() -> None:
    student, teacher, batch = sample_outputs()
    objectives = Objectives({"ctkd": CTKD(strength=Schedule(0, 1, until=0.5))})
    objectives.build(student, teacher)
    level = objectives["ctkd"].level
    gradients = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        loss = objectives(student, teacher, batch | {"progress": torch.tensor(progress)}).losses[
            "ctkd"
        ]
        gradients.append(float(torch.autograd.grad(loss, level)[0]))
    assert gradients[0] == 0
    assert gradients[3] == gradients[2] == pytest.approx(2 * gradients[1])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"form: unknown value.*got 'glob'. Did you mean global"):
        CTKD("glob")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="defined for 2 or more"):
        ctkd_loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.ones(()))
    with pytest.raises(ValueError, match="the same items and classes"):
        CTKD("instance").build({"logits": torch.zeros(3, 4)}, {"logits": torch.zeros(3, 5)})
