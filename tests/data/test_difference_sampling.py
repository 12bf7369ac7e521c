"""Rows that a teacher predicts better than a reference model."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch, Outputs
from instil.data.difference_sampling import Forward, difference_scores, select_rows
from instil.data.sources.arithmetic import arithmetic
from tests.schemes.texts import net


def uniform(batch: Batch) -> Outputs:
    return {"logits": torch.zeros(*batch["input_ids"].shape, 13)}


def answers_known_below(limit: int) -> Forward:
    """Return a network that knows the answers of the rows with an index below a limit."""

    def forward(batch: Batch) -> Outputs:
        logits = 5.0 * torch.nn.functional.one_hot(batch["label"].clamp_min(0), 13)
        return {"logits": logits * (batch["index"] < limit)[:, None, None]}

    return forward


def test_rows_that_only_the_teacher_predicts_are_selected() -> None:
    samples = arithmetic(2, 40, 8).train
    scores = difference_scores(samples, answers_known_below(30), answers_known_below(10), 7)
    selected = select_rows(samples, scores, 0.5)
    assert selected.index.tolist() == list(range(10, 30))
    batch, part = samples.__getitems__(range(10, 30)), selected.__getitems__(range(20))
    assert torch.equal(part["input_ids"], batch["input_ids"])
    assert scores[:10].abs().max() == scores[30:].abs().max() == 0


def test_the_score_is_the_difference_of_the_losses_per_token() -> None:
    samples = arithmetic(1, 20, 4).train
    student = net(8)

    def forward(batch: Batch) -> Outputs:
        ids = batch["input_ids"].clamp_max(10)[:, :8]
        logits = student({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["logits"]
        return {"logits": torch.nn.functional.pad(logits, (0, 2, 0, batch["label"].shape[1] - 8))}

    scores = difference_scores(samples, forward, uniform)
    batch = samples.__getitems__(range(20))
    losses = torch.nn.functional.cross_entropy(
        forward(batch)["logits"].transpose(1, 2), batch["label"], reduction="none"
    )
    expected = torch.tensor(13.0).log() - losses.sum(1) / batch["valid"].sum(1)
    torch.testing.assert_close(scores, expected.double(), atol=1e-5, rtol=0)


def test_wrong_input() -> None:
    samples = arithmetic(1, 20, 4).train
    with pytest.raises(ValueError, match="share: Expected a share above 0"):
        select_rows(samples, torch.zeros(20), 0.0)
    with pytest.raises(ValueError, match="scores: Expected one per row, 20, got 3"):
        select_rows(samples, torch.zeros(3), 0.5)
