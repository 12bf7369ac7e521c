"""The deepest classifier of a net teaches the shallower ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.byot import BYOT, byot_hint_loss
from instil.testing import check_scheme
from tests import nets
from tests.schemes.stages import images, staged, timed


def make_scheme(hint_weight: float = 0.01) -> BYOT:
    torch.manual_seed(0)
    scheme = BYOT(
        staged(), {"cross_entropy": CrossEntropy(average="labelled"), "kd": KD(3)}, hint_weight
    )
    scheme.train().prepare(images())
    return scheme


def test_contracts() -> None:
    check_scheme(
        lambda: BYOT(staged(), {"cross_entropy": CrossEntropy(), "kd": KD()}, 0.01), images
    )


@pytest.mark.parametrize("positive", [True, False])
def test_the_hint_equals_a_plain_sum_of_squares(positive: bool) -> None:
    shallow, deepest = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = [
        sum((a - b) ** 2 for a, b in zip(*rows, strict=True) if not positive or a > 0 or b > 0)
        for rows in zip(shallow, deepest, strict=True)
    ]
    first, second = (
        torch.tensor(shallow, requires_grad=True),
        torch.tensor(deepest, requires_grad=True),
    )
    values = byot_hint_loss(first, second, positive, "none")
    assert np.allclose(values.detach(), expected)
    values.sum().backward()
    assert second.grad is None
    with pytest.raises(ValueError, match=r"deepest: the features differ in shape\."):
        byot_hint_loss(first, second[:, :2])


def test_losses_match_the_formula_of_the_paper() -> None:
    scheme, batch = make_scheme(), timed()
    (update,) = scheme.step(batch)
    ends = scheme.branch_outputs(scheme.student(batch))
    assert len(ends) == 3
    label = batch["label"]
    assert torch.allclose(
        update.losses["cross_entropy"],
        sum(F.cross_entropy(end["logits"], label, ignore_index=-100) for end in ends),
        atol=1e-6,
    )  # type: ignore[arg-type]
    soft = [
        9
        * F.kl_div(
            (end["logits"] / 3).log_softmax(1),
            (ends[0]["logits"] / 3).softmax(1),
            reduction="batchmean",
        )
        for end in ends[1:]
    ]
    assert torch.allclose(update.losses["kd"], torch.stack(soft).sum(), atol=1e-6)
    apart = [(end["embedding"] - ends[0]["embedding"]).square() for end in ends[1:]]
    assert torch.allclose(
        update.losses["hint"], 0.01 * torch.stack(apart).sum((0, 2)).mean(), atol=1e-6
    )


def test_nothing_of_it_teaches_the_deepest() -> None:
    scheme = make_scheme()
    (update,) = scheme.step(timed())
    (update.losses["kd"] + update.losses["hint"]).backward()
    for name, parameter in scheme.student.named_parameters():
        if "stages.2" in name or "head" in name:
            assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e-6, name
    assert all(
        parameter.grad is not None
        for name, parameter in scheme.branches.named_parameters()
        if name.startswith("0.body")
    )


def test_the_student_is_shipped_without_the_other_ends() -> None:
    scheme = make_scheme()
    assert scheme.export() is scheme.student
    assert not any(
        parameter is other
        for parameter in scheme.branches.parameters()
        for other in scheme.export().parameters()
    )


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match="two or more 'features' of the student, which outputs logits, embedding"
    ):
        BYOT(nets.net(), {"cross_entropy": CrossEntropy()}).prepare(nets.batch())
    with pytest.raises(ValueError, match="two or more 'features'"):
        BYOT(staged(stages=1), {"cross_entropy": CrossEntropy()}).prepare(images())
    with pytest.raises(
        ValueError, match="FitNet needs features of the student, which outputs embedding, logits"
    ):
        BYOT(staged(), {"fitnet": FitNet()}).prepare(images())
