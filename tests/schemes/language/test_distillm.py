"""Steps with the student's own text, its source, and the held-out samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.core import Objectives, Schedule
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.jsd import JSD
from instil.objectives.logits.skewed_reverse_kl import SkewedReverseKL
from instil.schemes.language.distillm import DistiLLM
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import SAMPLING, net, prompts, timed


def make(**options: Any) -> DistiLLM:
    goals = {"skewed_reverse_kl": SkewedReverseKL(), "cross_entropy": CrossEntropy()}
    scheme = DistiLLM(
        net(8),
        Frozen(net(8, 1)),
        goals,
        **{"memory": 20, "held_out": 0.2, "every": 2, "tolerance": 0.0, "sampling": SAMPLING}
        | options,
    )
    scheme.prepare(prompts())
    return scheme


# The contract compares step 1 with the last five, so this share must give them text of one kind.
@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_contracts(probability: float) -> None:
    check_scheme(lambda: make(initial_prob=probability), prompts)


def rows_with_loss(loss: float) -> dict[str, torch.Tensor]:
    validation = torch.tensor([[[3 * loss, 3.0], [0.0, 0.0]]])
    return {"validation": validation.expand(2, -1, -1)}


def test_the_probability_rises_when_the_validation_loss_does() -> None:
    scheme = make(every=2, tolerance=0.1, prob_increment=0.25)
    probabilities = []
    for loss in (1.0, 1.0, 0.5, 0.7, 0.9, 0.9, 0.95, 0.95, 2.0, 2.0):
        scheme.after_step(rows_with_loss(loss))
        probabilities.append(float(scheme.student_text_prob))
    assert probabilities == [0, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0.5]


def test_a_check_without_held_out_items_has_no_loss_to_compare() -> None:
    scheme = make(every=1, prob_increment=0.25)
    for loss in (1.0, None, 0.9, None):
        nothing = {"validation": torch.zeros(1, 2, 2)}
        scheme.after_step(nothing if loss is None else rows_with_loss(loss))
    assert float(scheme.student_text_prob) == 0
    scheme.after_step(rows_with_loss(1.0))
    assert float(scheme.student_text_prob) == 0.25


def test_a_rising_weight_does_not_raise_the_validation_loss() -> None:
    objectives = Objectives({"jsd": JSD()}, {"jsd": Schedule(0.0, 2.0)})
    scheme = DistiLLM(net(8), Frozen(net(8, 1)), objectives, held_out=0.4, sampling=SAMPLING)
    scheme.prepare(prompts())
    rows = [scheme.before_step(timed(0, now))["validation_rows"] for now in (0.1, 0.9)]
    early, late = map(scheme.validation_losses, rows)
    assert early[0, 0] > 0
    torch.testing.assert_close(early, late)


def test_held_out_rows_are_the_same_in_every_epoch_and_not_trained_on() -> None:
    scheme = make(held_out=0.4)
    first = scheme.before_step(timed(0))
    later = scheme.before_step(timed(0) | {"step": torch.tensor(9)})
    index = first["validation_rows"]["index"]
    assert 2 <= len(index) <= 12
    assert torch.equal(index, later["validation_rows"]["index"])
    assert not first["valid"][index].any()
    assert (
        scheme.validation_losses(first["validation_rows"])[0, 1]
        == first["validation_rows"]["valid"].sum()
    )


def test_held_out_rows_are_compared_in_evaluation_mode() -> None:
    scheme = make(held_out=0.4).train()
    modes: list[bool] = []
    scheme.student.register_forward_pre_hook(lambda net, _inputs: modes.append(net.training))
    scheme.validation_losses(scheme.before_step(timed(0))["validation_rows"])
    assert modes == [False]
    assert scheme.student.training


def test_student_text_is_new_until_the_memory_is_full_and_then_less_often() -> None:
    scheme = make(initial_prob=1.0, memory=24)
    for step in range(4):
        batch = scheme.before_step(timed(step, 1.0))
        assert batch["is_new_text"] is (step < 2)
        for update in scheme.step(batch):
            rows = update.state_updates
        scheme.after_step(rows)
    text = scheme.before_step(timed(5, 1.0))
    assert scheme.replay is not None
    for row in range(16):
        is_equal = [torch.equal(text["input_ids"][row], one) for one in scheme.replay["input_ids"]]
        assert any(is_equal)
        if text["valid"][row].any():
            assert torch.equal(text["valid"][row], scheme.replay["valid"][is_equal.index(True)])
    assert (text["label"] == -100).all()
    is_new = [scheme.before_step(timed(step, 0.5))["is_new_text"] for step in range(40)]
    assert 10 <= sum(is_new) <= 30
