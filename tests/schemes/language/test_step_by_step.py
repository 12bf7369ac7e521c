"""Both tasks of a prompt, and their losses."""

from __future__ import annotations

import pytest
import torch

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.language.step_by_step import StepByStep
from instil.testing import check_scheme
from instil.training.batches import Batches
from tests.schemes.texts import net, prompts, two_tasks


def make(weight: float = 0.5) -> StepByStep:
    return StepByStep(net(8), None, {"cross_entropy": CrossEntropy()}, rationale_weight=weight)


def test_contracts() -> None:
    check_scheme(make, two_tasks)


def test_the_loss_is_that_of_both_tasks() -> None:
    scheme = make()
    batch = two_tasks()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    for prefix, name, weight in (("", "cross_entropy", 1.0), ("rationale_", "rationale", 0.5)):
        logits = scheme.student(
            {"input_ids": batch[f"{prefix}input_ids"]}
            | {"attention_mask": batch[f"{prefix}attention_mask"]}
        )["logits"]
        expected = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[f"{prefix}label"].flatten()
        )
        torch.testing.assert_close(update.losses[name], weight * expected)
    counts = scheme.counts(batch)
    assert counts["rationale"] == batch["rationale_valid"].sum()
    assert counts["cross_entropy"] == batch["valid"].sum()


def test_a_process_without_data_has_no_rationales() -> None:
    scheme = make()
    scheme.prepare(two_tasks())
    counts = scheme.counts(Batches.empty_like(two_tasks()))
    assert counts["rationale"] == counts["cross_entropy"] == 0


def test_rows_without_rationales_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Set data\.rationale to task"):
        make().prepare(prompts())
