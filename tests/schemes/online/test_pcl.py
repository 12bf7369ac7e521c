"""Peers on one trunk learn from the classifier of all features and from the others' averages."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.online.pcl import PCL, ramped_decay
from instil.testing import check_scheme
from tests import nets
from tests.schemes.stages import images, staged, timed


def prepared_scheme(**options: Any) -> PCL:
    torch.manual_seed(0)
    objectives = {"cross_entropy": CrossEntropy(average="labelled"), "kd": KD(3)}
    scheme = PCL(staged(), objectives, **options)
    scheme.train().prepare(images())
    return scheme


def softmax(logits: list[float], temperature: float) -> list[float]:
    """Probabilities of one sample, by plain arithmetic."""
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def divergence(student: list[list[float]], teacher: list[list[float]]) -> float:
    """Mean KL divergence over the samples at temperature 3, times 9."""
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        pairs = zip(softmax(teacher_row, 3), softmax(student_row, 3), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return 9 * total / len(student)


@pytest.mark.parametrize("peers", [2, 3])
def test_contracts(peers: int) -> None:
    check_scheme(
        lambda: PCL(staged(), {"cross_entropy": CrossEntropy(), "kd": KD()}, peers), images
    )


def test_contracts_with_a_crop_for_each_peer() -> None:
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD()}
    check_scheme(lambda: PCL(staged(), objectives, crop_scale=0.5, flip=True), images)


def test_each_peer_and_its_average_see_the_crop_of_the_peer() -> None:
    scheme = prepared_scheme(crop_scale=0.3)
    batch = scheme.before_step(timed())
    views = batch["views"]
    assert views.shape == (16, 3, 1, 6, 6)
    assert not torch.equal(views[:, 0], views[:, 1])
    ends, _ = scheme.observe(batch)
    means = scheme.mean_logits(batch)
    for peer in range(3):
        alone = scheme.branch_outputs(scheme.student({"image": views[:, peer]}))[peer]
        for role in ("logits", "embedding"):
            assert torch.allclose(ends[peer][role], alone[role], atol=1e-6)
        # The averages start as copies of the peers.
        assert torch.allclose(means[peer], alone["logits"], atol=1e-6)


def test_losses_match_the_formula_of_the_paper() -> None:
    scheme, batch = prepared_scheme(average="labelled"), timed()
    for average in (scheme.mean_student, *scheme.mean_branches):
        for parameter in average.parameters():  # type: ignore[union-attr]
            parameter.add_(0.1 * torch.randn_like(parameter))
    (update,) = scheme.step(batch)
    ends = scheme.branch_outputs(scheme.student(batch))
    assert scheme.ensemble_head is not None
    features = torch.cat([end["embedding"] for end in ends], 1)
    ensemble = features @ scheme.ensemble_head.weight.T + scheme.ensemble_head.bias
    label = batch["label"]
    hard = [F.cross_entropy(end["logits"], label, ignore_index=-100) for end in ends]
    assert torch.allclose(update.losses["cross_entropy"], torch.stack(hard).sum(), atol=1e-6)
    expected = F.cross_entropy(ensemble, label, ignore_index=-100)
    assert torch.allclose(update.losses["ensemble"], expected, atol=1e-6)
    assert scheme.counts(batch)["ensemble"] == (label >= 0).sum()
    peers = [end["logits"].tolist() for end in ends]
    means = [logits.tolist() for logits in scheme.mean_logits(batch)]
    soft = 0.0
    for j in range(3):
        soft += divergence(peers[j], ensemble.tolist())
        soft += sum(divergence(peers[j], means[other]) for other in range(3) if other != j) / 2
    assert update.losses["kd"].item() == pytest.approx(soft, abs=1e-5)


def test_the_labelled_share_weighs_the_loss_of_the_ensemble() -> None:
    batch = timed()
    share = float((batch["label"] >= 0).float().mean())
    (update,) = prepared_scheme().step(batch)
    (labelled,) = prepared_scheme(average="labelled").step(batch)
    expected = share * labelled.losses["ensemble"]
    assert torch.allclose(update.losses["ensemble"], expected, rtol=1e-6)


def test_no_gradient_passes_into_a_teacher() -> None:
    scheme = prepared_scheme()
    (update,) = scheme.step(timed())
    assert scheme.ensemble_head is not None
    update.losses["kd"].backward(retain_graph=True)
    assert scheme.ensemble_head.weight.grad is None
    update.losses["ensemble"].backward()
    for parameter in (scheme.ensemble_head.weight, *scheme.branches.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_averages_are_the_mean_of_the_first_weights_and_then_decay() -> None:
    for update, expected in ((1, 0.0), (2, 0.5), (4, 0.75), (10, 0.8)):
        decay = ramped_decay(torch.tensor(float(update)), 0.8)
        assert float(decay) == pytest.approx(expected)
    scheme = prepared_scheme(decay=0.6)
    branch, average = scheme.branches[0], scheme.mean_branches[0]
    history = []
    for _ in range(4):
        with torch.no_grad():
            for parameter in (*scheme.student.parameters(), *scheme.branches.parameters()):
                parameter.add_(torch.randn_like(parameter))
        scheme.after_step({})
        history.append([parameter.clone() for parameter in branch.parameters()])
    for i, parameter in enumerate(average.parameters()):
        expected_average = (history[0][i] + history[1][i]) / 2
        for step in (2, 3):
            expected_average = 0.6 * expected_average + 0.4 * history[step][i]
        assert torch.allclose(parameter, expected_average, atol=1e-6)
    assert scheme.mean_student is not None
    trunk = zip(scheme.mean_student.parameters(), scheme.student.parameters(), strict=True)
    assert not any(torch.equal(slow, fast) for slow, fast in trunk)


def test_an_objective_without_a_teacher_counts_once() -> None:
    scheme, batch = prepared_scheme(peers=2), timed()
    losses = torch.tensor([1.0, 3.0, 5.0])
    assert scheme.combine("cross_entropy", losses) == 3
    assert scheme.combine("kd", losses) == 5
    assert len(scheme.mean_logits(batch)) == 2


def test_the_student_alone_is_exported() -> None:
    scheme = prepared_scheme()
    assert scheme.export() is scheme.student


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="branches start from the stages before the last"):
        PCL(nets.net(), {"cross_entropy": CrossEntropy()}).prepare(nets.batch())
    with pytest.raises(ValueError, match="Expected 'label' in the batch, got image"):
        PCL(staged(), {"kd": KD()}).prepare({"image": images()["image"]})
    scheme = PCL(nets.net(), {"cross_entropy": CrossEntropy()}, crop_scale=0.5)
    with pytest.raises(ValueError, match=r"scheme.crop_scale: .* Set crop_scale: null"):
        scheme.before_step(nets.batch())
    with pytest.raises(ValueError, match=r"scheme.flip: .* Expected crop_scale in"):
        PCL(staged(), {"kd": KD()}, flip=True)
