"""Preference pairs, relative to a teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Net
from instil.functional.preferences import dpkd_loss
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.dpkd import DPKD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import net, prompts, two_tasks


def make(**options: Any) -> DPKD:
    objectives = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    return DPKD(net(8), Frozen(net(16, seed=1)), objectives, **options)


def batch_of(step: int = 0, size: int = 16) -> Batch:
    return two_tasks(step, size, "rejected_")


def text_log_probs(model: Net, batch: Batch, prefix: str, per_token: bool) -> Tensor:
    """Log-probability of each text, one token after another."""
    inputs = {key: batch[f"{prefix}{key}"] for key in ("input_ids", "attention_mask")}
    log_probs = model(inputs)["logits"].log_softmax(-1)
    label, valid = batch[f"{prefix}label"], batch[f"{prefix}valid"]
    totals = []
    for row in range(len(label)):
        values = [log_probs[row, i, label[row, i]] for i in range(len(label[row])) if valid[row, i]]
        total = torch.stack(values).sum() if values else torch.zeros(())
        totals.append(total / max(len(values), 1) if per_token else total)
    return torch.stack(totals)


def test_contracts() -> None:
    check_scheme(make, batch_of)


@pytest.mark.parametrize("per_token", [False, True])
def test_the_loss_compares_both_texts_relative_to_the_teacher(per_token: bool) -> None:
    scheme = make(beta=0.7, per_token=per_token, preference_weight=0.5)
    batch = batch_of()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    assert isinstance(scheme.teacher, Frozen)
    margin = torch.zeros(16)
    for model, prefix, sign in (
        (scheme.student, "", 1),
        (scheme.student, "rejected_", -1),
        (scheme.teacher.net, "", -1),
        (scheme.teacher.net, "rejected_", 1),
    ):
        margin = margin + sign * text_log_probs(model, batch, prefix, per_token)
    both = batch["valid"].any(1) & batch["rejected_valid"].any(1)
    assert 0 < both.sum() < 16
    expected = 0.5 * (1 + (-0.7 * margin).exp()).log()[both].mean()
    torch.testing.assert_close(update.losses["preference"], expected)
    offline = scheme.objectives(*scheme.forward_both(batch), batch)
    assert offline.losses.keys() == update.losses.keys() - {"preference"}
    for name, loss in offline.losses.items():
        torch.testing.assert_close(update.losses[name], loss)


def test_the_gradient_raises_the_margin() -> None:
    preferred, rejected = torch.zeros(2, 1, requires_grad=True)
    values = dpkd_loss(preferred, rejected, torch.tensor([-1.0]), torch.tensor([-2.0]), beta=0.5)
    first, second = torch.autograd.grad(values.sum(), (preferred, rejected))
    # The margin is -1, and the derivative of the loss is -beta * sigmoid(-beta * margin).
    torch.testing.assert_close(first, -0.5 * torch.tensor([0.5]).sigmoid())
    torch.testing.assert_close(second, -first)


def test_batches_and_teachers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^dpkd needs preference pairs.*data\.preferences=true"):
        make().prepare(prompts())
    with pytest.raises(ValueError, match=r"^dpkd needs a teacher"):
        DPKD(net(8), None, {"cross_entropy": CrossEntropy()}).prepare(batch_of())
    with pytest.raises(ValueError, match=r"^teacher\.tokenizer: dpkd compares"):
        make().prepare(batch_of() | {"teacher_input_ids": torch.zeros(16, 8)})
