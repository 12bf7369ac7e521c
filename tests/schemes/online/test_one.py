"""The gate, the losses of branches and ensemble, and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.online.one import ONE, Gate, gated_logits
from instil.testing import check_scheme
from tests import nets
from tests.schemes.stages import images, staged, timed


def make_scheme(**options: Any) -> ONE:
    torch.manual_seed(0)
    scheme = ONE(
        staged(), {"cross_entropy": CrossEntropy(average="labelled"), "kd": KD(3)}, **options
    )
    scheme.train().prepare(images())
    return scheme


@pytest.mark.parametrize("branches", [2, 3])
def test_contracts(branches: int) -> None:
    check_scheme(
        lambda: ONE(staged(), {"cross_entropy": CrossEntropy(), "kd": KD()}, branches), images
    )


def test_the_gate_weighs_the_branches_per_sample() -> None:
    logits, gate = torch.randn(4, 3, 5), torch.rand(4, 3)
    for n in range(4):
        assert torch.allclose(
            gated_logits(logits, gate)[n], sum(gate[n, i] * logits[n, i] for i in range(3))
        )  # type: ignore[arg-type]
    torch.manual_seed(0)
    weights = Gate(6, 3, "batch")(torch.randn(8, 6))
    assert torch.allclose(weights.sum(1), torch.ones(8))
    assert (weights < torch.e**3 / (torch.e**3 + 2)).all()


def test_losses_match_the_formula_of_the_paper() -> None:
    scheme, batch = make_scheme(average="labelled"), timed()
    (update,) = scheme.step(batch)
    outputs = scheme.student(batch)
    logits = [end["logits"] for end in scheme.branch_outputs(outputs)]
    assert len(logits) == 3
    assert scheme.gate is not None
    ensemble = gated_logits(
        torch.stack(logits, 1), scheme.gate(outputs["features"][1].mean((2, 3)))
    )
    label = batch["label"]
    assert torch.allclose(
        update.losses["ensemble"], F.cross_entropy(ensemble, label, ignore_index=-100), atol=1e-6
    )
    hard = torch.stack([F.cross_entropy(one, label, ignore_index=-100) for one in logits]).sum()
    assert torch.allclose(update.losses["cross_entropy"], hard, atol=1e-6)
    soft = [
        9 * F.kl_div((one / 3).log_softmax(1), (ensemble / 3).softmax(1), reduction="batchmean")
        for one in logits
    ]
    assert torch.allclose(update.losses["kd"], torch.stack(soft).sum(), atol=1e-6)
    assert scheme.counts(batch)["ensemble"] == (label >= 0).sum()


def test_the_labelled_share_weighs_the_loss_of_the_ensemble() -> None:
    batch = timed()
    share = float((batch["label"] >= 0).float().mean())
    (update,) = make_scheme().step(batch)
    (labelled,) = make_scheme(average="labelled").step(batch)
    expected = share * labelled.losses["ensemble"]
    assert torch.allclose(update.losses["ensemble"], expected, rtol=1e-6)
    assert make_scheme().counts(batch)["ensemble"] == len(batch["label"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_of_an_unlabelled_sample_do_not_reach_the_gate(value: float) -> None:
    scheme, batch = make_scheme(), timed()
    unlabelled = (batch["label"] < 0).float().unsqueeze(1)
    outputs = scheme.student(batch)
    ends = scheme.branch_outputs(outputs)
    for end in ends:
        end["logits"] = end["logits"] + torch.where(unlabelled > 0, value, 0.0)
    _, losses = scheme.teachers_for(ends, outputs["features"], batch)
    losses["ensemble"].backward()
    gradients = [p.grad for p in scheme.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_gate_learns_from_the_label_loss_only() -> None:
    scheme = make_scheme(norm="batch")
    assert scheme.gate is not None
    (update,) = scheme.step(timed())
    update.losses["kd"].backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in scheme.gate.parameters())
    update.losses["ensemble"].backward()
    assert scheme.gate.score.weight.grad is not None
    assert scheme.gate.score.weight.grad.abs().sum() > 0


def test_branches_differ_and_the_student_is_exported() -> None:
    scheme = make_scheme()
    first, second = (end["logits"] for end in scheme.branch_outputs(scheme.student(images()))[1:])
    assert not torch.allclose(first, second)
    assert scheme.export() is scheme.student


def test_missing_stages_and_labels_are_errors() -> None:
    with pytest.raises(ValueError, match="branches start from the stages before the last"):
        ONE(nets.net(), {"cross_entropy": CrossEntropy()}).prepare(nets.batch())
    with pytest.raises(ValueError, match="Expected 'label' in the batch, got image"):
        ONE(staged(), {"kd": KD()}).prepare({"image": images()["image"]})
