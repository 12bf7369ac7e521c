"""When the student's own text is learned from, and which."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.skewed_reverse_kl import SkewedReverseKL
from instil.schemes.language.distillm import DistiLLM
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import END, net, prompts, timed


def make(**options: Any) -> DistiLLM:
    goals = {"skewed_reverse_kl": SkewedReverseKL(), "cross_entropy": CrossEntropy()}
    scheme = DistiLLM(
        net(8),
        Frozen(net(8, 1)),
        goals,
        **{"memory": 20, "held_out": 0.2, "every": 2, "tolerance": 0.0, "end": END} | options,
    )
    scheme.prepare(prompts())
    return scheme


@pytest.mark.parametrize("chance", [0.0, 0.7])
def test_contracts(chance: float) -> None:
    check_scheme(lambda: make(initial_prob=chance), prompts)


def kept(scheme: DistiLLM, loss: float) -> dict[str, torch.Tensor]:
    watched = torch.tensor([[[3 * loss, 3.0], [0.0, 0.0]]])
    return {"watched": watched.expand(2, -1, -1)}


def test_the_chance_rises_where_the_watched_loss_does() -> None:
    scheme, found = make(every=2, tolerance=0.1, prob_increment=0.25), []
    for loss in (1.0, 1.0, 0.5, 0.7, 0.9, 0.9, 0.95, 0.95, 2.0, 2.0):
        scheme.after_step(kept(scheme, loss))
        found.append(float(scheme.student_text_prob))
    assert found == [0, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0.5]


def test_watched_rows_are_not_learned_from_in_any_epoch() -> None:
    scheme = make(held_out=0.4)
    first, later = (
        scheme.before_step(timed(0)),
        scheme.before_step(timed(0) | {"step": torch.tensor(9)}),
    )
    index = first["watched"]["index"]
    assert 2 <= len(index) <= 12
    assert torch.equal(index, later["watched"]["index"])
    assert not first["valid"][index].any()
    assert scheme.watch(first["watched"])[0, 1] == first["watched"]["valid"].sum()


def test_own_text_is_new_until_the_memory_is_full_and_less_and_less_after() -> None:
    scheme = make(initial_prob=1.0, memory=24)
    for step in range(4):
        batch = scheme.before_step(timed(step, 1.0))
        assert batch["written"] is (step < 2)
        for update in scheme.step(batch):
            rows = update.state_updates
        scheme.after_step(rows)
    given = timed(5, 1.0)
    text = scheme.before_step(given)
    assert scheme.replay is not None
    for row in range(16):
        known = [torch.equal(text["input_ids"][row], one) for one in scheme.replay["input_ids"]]
        assert any(known)
        if text["valid"][row].any():
            assert torch.equal(text["valid"][row], scheme.replay["valid"][known.index(True)])
    assert (text["label"] == -100).all()
    news = [scheme.before_step(timed(step, 0.5))["written"] for step in range(40)]
    assert 10 <= sum(news) <= 30
