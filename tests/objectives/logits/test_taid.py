"""TAID: initial time, updates from the loss of a whole step, and the state dict."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives, Schedule
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.taid import TAID, taid_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(
    start: float, end: float, rate: float, smoothing: float, losses: list[float], steps: int
) -> list[float]:
    """Update rule of the paper, step by step."""
    time, momentum, times = start, 0.0, []
    for step, (loss, before) in enumerate(zip(losses, [math.inf, *losses], strict=False)):
        if before < math.inf:
            momentum = smoothing * momentum + (1 - smoothing) * (before - loss) / (before + 1e-15)
            further = time + rate * (1 - time) / (1 + math.exp(-momentum))
            time = min(end, max(start + (end - start) * step / steps, further))
        times.append(time)
    return times


def test_time_is_the_share_of_the_teacher() -> None:
    student, teacher = draw(4, 5), draw(4, 5, seed=1)
    torch.testing.assert_close(taid_loss(student, teacher, 1.0), forward_kl_loss(student, teacher))
    assert taid_loss(student, teacher, 0.0).abs() < 1e-6
    expected = forward_kl_loss(student, (0.7 * student + 0.3 * teacher).detach())
    torch.testing.assert_close(taid_loss(student, teacher, 0.3), expected)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_time_moves_with_the_loss_of_the_step(rate: float) -> None:
    """Three micro-batches of a step give one update, with their common mean."""
    objective = TAID(0.2, 0.9, rate, 0.5)
    objectives = Objectives({"it": objective})
    objectives.build({"logits": draw(1, 5)}, {"logits": draw(1, 5)})
    times, losses, steps = [], [], 6
    for step in range(steps):
        student, teacher = draw(6, 5, seed=step), draw(6, 5, seed=10)
        batch: Batch = {
            "index": torch.arange(6),
            "valid": torch.tensor([1.0, 1, 0, 1, 1, 1]),
            "progress": torch.tensor(step / steps),
        }
        losses.append(float(taid_loss(student, teacher, objective.time, weight=batch["valid"])))
        rows = []
        for cut in (slice(0, 1), slice(1, 4), slice(4, 6)):
            part = {key: value[cut] if value.ndim else value for key, value in batch.items()}
            rows.append(
                objectives({"logits": student[cut]}, {"logits": teacher[cut]}, part).state_updates
            )
        objectives.after_step({key: torch.cat([row[key] for row in rows]) for key in rows[0]})
        times.append(float(objective.time))
    assert times == pytest.approx(moved(0.2, 0.9, rate, 0.5, losses, steps), abs=1e-5)
    assert times[-1] > 0.7 if rate else times[-1] == pytest.approx(0.2 + 0.7 * 5 / 6)
    assert {"time", "momentum", "before"} <= set(objective.state_dict())


def test_keep_reuses_the_values_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = TAID()
    objective.resolve({"logits"}, {"logits"})
    student, teacher, batch = (
        {"logits": draw(3, 5)},
        {"logits": draw(3, 5, seed=1)},
        {"index": torch.arange(3)},
    )
    calls = []
    original = TAID.term
    monkeypatch.setattr(
        TAID, "term", lambda self, batch_: calls.append(1) or original(self, batch_)
    )
    values = objective(student, teacher, batch)
    rows = objective.state_updates(student, teacher, batch)
    torch.testing.assert_close(rows["loss"], values)
    assert len(calls) == 1
    torch.testing.assert_close(
        objective.state_updates({"logits": student["logits"] + 1}, teacher, batch)["loss"], values
    )
    assert len(calls) == 2
    copy.deepcopy(objective)


def test_start_may_be_a_schedule() -> None:
    assert float(TAID(start=Schedule(0.1, 0.5)).time) == pytest.approx(0.1)


def test_a_step_without_items_changes_nothing() -> None:
    objective = TAID(0.2, 0.9, 0.5)
    objectives = Objectives({"it": objective})
    logits = {"logits": draw(4, 5)}, {"logits": draw(4, 5, seed=1)}
    objectives.build(*logits)
    clock: Batch = {"index": torch.arange(4), "progress": torch.tensor(0.1)}
    for counts in (True, True, False):
        before = copy.deepcopy(objective.state_dict())
        update = objectives(*logits, clock | {"valid": torch.full((4,), counts)})
        objectives.after_step(update.state_updates)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name])
