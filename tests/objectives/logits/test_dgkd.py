"""DGKD against a plain loop, and the members that a step drops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Batch
from instil.objectives.logits.dgkd import DGKD, active_members, dgkd_loss
from instil.objectives.logits.kd import kd_loss


def test_agrees_with_a_plain_loop() -> None:
    student, teachers = (
        torch.randn(3, 5, dtype=torch.float64),
        torch.randn(4, 3, 5, dtype=torch.float64),
    )
    active = [1, 0, 1, 1]
    values = dgkd_loss(student, teachers, 2.0, torch.tensor(active), "none")
    for n in range(3):
        q = np.exp(student[n].numpy() / 2)
        q /= q.sum()
        expected = 0.0
        for teacher, is_active in zip(teachers, active, strict=True):
            p = np.exp(teacher[n].numpy() / 2)
            p /= p.sum()
            expected += is_active * 4 * sum(p * np.log(p / q))
        assert np.isclose(values[n], expected, rtol=1e-10)
    assert torch.allclose(
        dgkd_loss(student, teachers, 2.0),
        sum(kd_loss(student, teacher, 2.0) for teacher in teachers),
    )


def test_the_smallest_numbers_are_left_out_and_one_member_stays() -> None:
    noise = torch.tensor([0.4, 0.1, 0.9])
    assert [active_members(noise, drop).tolist() for drop in (0, 1, 2, 3)] == [
        [1, 1, 1],
        [1, 0, 1],
        [0, 0, 1],
        [0, 0, 1],
    ]
    assert active_members(torch.tensor([0.3]), 1).tolist() == [1]


def at(step: int, seed: int = 0, rows: int = 4) -> Batch:
    return {"x": torch.zeros(rows), "step": torch.tensor(step), "seed": torch.tensor(seed)}


def test_a_step_leaves_out_the_same_members_for_every_sample_and_rank() -> None:
    objective, teachers = DGKD(drop=1), torch.zeros(3, 4, 5)
    draws = [tuple(objective.draw_active(teachers, at(step)).tolist()) for step in range(60)]
    assert draws == [
        tuple(objective.draw_active(torch.zeros(3, 1, 5), at(step, rows=1)).tolist())
        for step in range(60)
    ]
    assert set(draws) == {(0, 1, 1), (1, 0, 1), (1, 1, 0)}
    assert all(draws.count(mask) > 8 for mask in set(draws))
    assert draws != [
        tuple(objective.draw_active(teachers, at(step, 1)).tolist()) for step in range(60)
    ]


def test_active_members_are_summed() -> None:
    student, teachers = torch.randn(4, 5), torch.randn(3, 4, 5)
    outputs = {
        "logits": teachers.mean(0),
        "members": tuple({"logits": teacher} for teacher in teachers),
    }
    every = torch.stack([kd_loss(student, teacher, 5.0, reduction="none") for teacher in teachers])
    assert torch.allclose(DGKD(drop=0)({"logits": student}, outputs, at(3)), every.sum(0))
    objective = DGKD(drop=2)
    is_active = objective.draw_active(teachers, at(3)).argmax()
    assert torch.allclose(objective({"logits": student}, outputs, at(3)), every[is_active])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(K, \*\(4, 5\)\)"):
        dgkd_loss(torch.zeros(4, 5), torch.zeros(2, 4, 6))


def test_compiles_without_graph_breaks() -> None:
    student, teachers, active = torch.randn(4, 5), torch.randn(3, 4, 5), torch.tensor([1, 0, 1])
    compiled = torch.compile(dgkd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teachers, 5.0, active), dgkd_loss(student, teachers, 5.0, active)
    )
