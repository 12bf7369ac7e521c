"""Rationales with their answers, and the answers of wrong rationales."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch
from instil.data.sources.arithmetic import arithmetic
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.language.rationale_consistency import RationaleConsistency
from instil.testing import check_scheme
from tests.schemes.texts import net, prompts, two_tasks


def make(weight: float = 0.5) -> RationaleConsistency:
    return RationaleConsistency(
        net(8), None, {"cross_entropy": CrossEntropy()}, counterfactual_weight=weight
    )


def batch_of(step: int = 0, size: int = 16) -> Batch:
    return two_tasks(step, size, "counterfactual_")


def test_contracts() -> None:
    check_scheme(make, batch_of)


def test_the_loss_is_that_of_both_tasks() -> None:
    scheme = make()
    batch = batch_of()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    rows = {"": ("cross_entropy", 1.0), "counterfactual_": ("counterfactual", 0.5)}
    for prefix, (name, weight) in rows.items():
        logits = scheme.student(
            {"input_ids": batch[f"{prefix}input_ids"]}
            | {"attention_mask": batch[f"{prefix}attention_mask"]}
        )["logits"]
        label = batch[f"{prefix}label"].clamp(min=0)
        chosen = logits.log_softmax(-1).gather(-1, label[..., None])[..., 0]
        expected = -chosen[batch[f"{prefix}valid"]].mean()
        torch.testing.assert_close(update.losses[name], weight * expected)


def test_the_wrong_rationale_is_an_input_without_loss() -> None:
    samples = arithmetic(2, 40, 20, rationale="counterfactual").train
    batch = samples.__getitems__(range(len(samples)))
    valid = batch["counterfactual_valid"]
    assert (valid.sum(-1) == len("085") + 1).all(), "the answer and its end"
    assert (batch["valid"].sum(-1) == len("8+7+0=15=5+2+1=08=085") + 1).all()


def test_rows_without_wrong_rationales_are_refused() -> None:
    message = r"^rationale_consistency needs .* Set data\.rationale to counterfactual$"
    with pytest.raises(ValueError, match=message):
        make().prepare(prompts())
