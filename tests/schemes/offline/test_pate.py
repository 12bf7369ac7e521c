"""Student that learns from noisy votes only."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from instil.data.sources.digits import digits
from instil.experiment.schemes import samples_for_scheme
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.pate import PATE
from instil.teachers.frozen import Frozen
from instil.teachers.private_votes import PrivateVotes
from instil.testing import check_scheme
from tests.nets import batch, net, timed


def votes() -> PrivateVotes:
    teacher = PrivateVotes(
        [net(seed=seed) for seed in range(9)], 1.0, threshold=3.0, threshold_noise=1.0
    )
    teacher.precompute([batch()])
    return teacher


def test_contracts() -> None:
    check_scheme(
        lambda: PATE(net(4), votes(), {"cross_entropy": CrossEntropy()}),
        lambda step: batch(seed=step),
    )


def test_the_votes_are_the_labels_and_the_true_ones_are_not_seen() -> None:
    scheme = PATE(net(4), votes(), {"cross_entropy": CrossEntropy(average="labelled")})
    scheme.prepare(batch())
    labelled_batch = scheme.before_step(timed())
    label = votes()(timed())["label"]
    assert torch.equal(labelled_batch["label"], label)
    assert 0 < (label != -100).sum() < 16
    assert scheme.counts(labelled_batch)["cross_entropy"] == (label != -100).sum()
    (update,) = scheme.step(labelled_batch)
    expected = F.cross_entropy(scheme.student(timed())["logits"], label, ignore_index=-100)
    assert torch.allclose(update.losses["cross_entropy"], expected, atol=1e-6)


def test_samples_without_a_label_of_their_own_are_trained_on() -> None:
    train = digits().train
    few = train.relabel(torch.where(torch.arange(len(train)) < 20, train.label, -100))
    scheme = PATE(net(4), votes(), {"cross_entropy": CrossEntropy()})
    assert len(samples_for_scheme(scheme, few)) == len(train)


def test_other_teachers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got no teacher\. Set teacher: private_votes"):
        PATE(net(), None, {"cross_entropy": CrossEntropy()})
    with pytest.raises(
        ValueError,
        match=r"Expected 'label' in the teacher's outputs, got logits, embedding\.",
    ):
        PATE(net(), Frozen(net()), {"cross_entropy": CrossEntropy()}).prepare(batch())
