"""Preference pairs of a teacher's and a student's text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from instil.core import Batch
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.dpkd_written import DPKDWritten
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.language.test_dpkd import text_log_probs
from tests.schemes.texts import SAMPLING, net, prompts, timed


def make(**options: Any) -> DPKDWritten:
    objectives = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    scheme = DPKDWritten(net(8), Frozen(net(16, seed=1)), objectives, sampling=SAMPLING, **options)
    scheme.prepare(prompts())
    return scheme


def texts_of(batch: Batch, prefix: str) -> torch.Tensor:
    return batch[f"{prefix}label"].masked_fill(~batch[f"{prefix}valid"], -100)


def test_contracts() -> None:
    check_scheme(make, prompts)


def test_the_teacher_writes_the_preferred_text_and_the_student_the_rejected_one() -> None:
    scheme = make()
    rows = timed()
    batch = scheme.before_step(rows)
    later = scheme.before_step(rows | {"step": torch.tensor(5)})
    assert torch.equal(texts_of(batch, ""), texts_of(later, "")), "once per prompt"
    assert not torch.equal(texts_of(batch, "rejected_"), texts_of(later, "rejected_"))
    data_text = rows["label"].masked_fill(~rows["valid"], -100)
    assert not torch.equal(texts_of(batch, ""), data_text)
    counts = rows["valid"].any(1)
    assert torch.equal(batch["valid"].any(1), counts)
    assert torch.equal(batch["rejected_valid"].any(1), counts)
    for row in counts.nonzero().flatten().tolist():
        start = int(rows["valid"][row].int().argmax())
        for prefix in ("", "rejected_"):
            prompt = batch[f"{prefix}input_ids"][row, : start + 1]
            assert torch.equal(prompt, rows["input_ids"][row, : start + 1])


@pytest.mark.parametrize("per_token", [False, True])
def test_the_loss_compares_both_texts_relative_to_the_teacher(per_token: bool) -> None:
    scheme = make(beta=0.7, per_token=per_token, preference_weight=0.5)
    assert isinstance(scheme.teacher, Frozen)
    batch = scheme.before_step(timed())
    (update,) = scheme.step(batch)
    ratios = [
        text_log_probs(scheme.student, batch, prefix, per_token)
        - text_log_probs(scheme.teacher.net, batch, prefix, per_token)
        for prefix in ("", "rejected_")
    ]
    both = batch["valid"].any(1)
    expected = 0.5 * F.softplus(-0.7 * (ratios[0] - ratios[1]))[both].mean()
    torch.testing.assert_close(update.losses["preference"], expected)
    assert update.losses.keys() == {"cross_entropy", "forward_kl", "preference"}


def test_a_teacher_is_required() -> None:
    scheme = DPKDWritten(net(8), None, {"cross_entropy": CrossEntropy()}, sampling=SAMPLING)
    with pytest.raises(ValueError, match="DPKDWritten needs a teacher"):
        scheme.prepare(prompts())
