"""DAFL: a generator that is trained by the teacher only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import UNLABELLED
from instil.modules.batch_statistics import bn_statistics_loss, record_statistics
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.bases.generator_losses import (
    activation_loss,
    balance_loss,
    entropy_loss,
    one_hot_loss,
)
from instil.schemes.data_free.dafl import DAFL
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.generator_nets import blank, classifier, maker, shapes, trained


def scheme(norm: bool = False, **options: Any) -> DAFL:
    return DAFL(classifier(4), Frozen(classifier(6, 1, norm)), {"kd": KD(1.0)}, maker(), **options)


def logits() -> tuple[Tensor, np.ndarray]:
    drawn = 2 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    p = np.exp(drawn.double().numpy())
    return drawn, p / p.sum(1, keepdims=True)


def test_keeps_the_contracts() -> None:
    """Without what couples the samples of a batch."""
    check_scheme(lambda: scheme(balance=0.0), shapes)
    check_scheme(lambda: scheme(balance=0.0, activation=0.0, memory=24), shapes)


def test_terms_by_numpy() -> None:
    drawn, p = logits()
    assert torch.allclose(
        one_hot_loss(drawn), torch.tensor(-np.log(p.max(1)).mean(), dtype=torch.float32)
    )
    assert np.allclose(entropy_loss(drawn), -(p * np.log(p)).sum(1), rtol=1e-5)
    share = p.mean(0)
    for base in (np.e, 10.0):
        assert float(balance_loss(drawn, base)) == pytest.approx(
            (share * np.log(share)).sum() / np.log(base), rel=1e-5
        )
    assert torch.allclose(activation_loss(drawn), -drawn.abs().mean(1))


def test_terms_stay_finite_where_the_teacher_is_certain() -> None:
    for term in (one_hot_loss, balance_loss, lambda x: entropy_loss(x).sum()):
        leaf = (1e4 * logits()[0]).requires_grad_()
        term(leaf).backward()
        assert torch.isfinite(leaf.grad).all()


def test_the_losses_are_the_papers_on_the_generators_images() -> None:
    it = scheme(one_hot=2.0, activation=0.5, balance=3.0)
    it.prepare(blank())
    update = it.generator_update(blank(), 1)
    seen = it.teacher_outputs({"image": it.generate(blank(), 1)})
    expected = {
        "one_hot": 2 * one_hot_loss(seen["logits"]),
        "activation": 0.5 * activation_loss(seen["embedding"]).mean(),
    }
    expected |= {"balanced": 3 * balance_loss(seen["logits"], 10)}
    assert set(update.losses) == set(expected)
    assert all(torch.allclose(update.losses[name], value) for name, value in expected.items())


def test_one_term_makes_the_teacher_sure_and_the_other_gives_it_all_classes() -> None:
    after = {}
    for term in ("one_hot", "balance"):
        it = scheme(**{"one_hot": 0.0, "balance": 0.0, "activation": 0.0} | {term: 1.0})
        it.teacher.net.model[-1].weight.data *= 10
        trained(it, 60)
        after[term] = it.teacher_outputs({"image": it.generate(blank())})["logits"]
    assert one_hot_loss(after["one_hot"]) < one_hot_loss(after["balance"]) - 0.2
    assert balance_loss(after["balance"]) < balance_loss(after["one_hot"]) - 0.2


def test_statistics_bring_the_images_to_what_the_batch_norms_remember() -> None:
    apart = {}
    for weight in (0.0, 5.0):
        it = scheme(True, activation=0.0, statistics=weight)
        trained(it, 60)
        with torch.no_grad(), record_statistics(it.teacher) as read:
            it.teacher_outputs({"image": it.generate(blank())})
        apart[weight] = float(bn_statistics_loss(read))
    assert apart[5.0] < apart[0.0] / 2


def test_the_student_sees_other_images_than_the_generator_was_judged_by() -> None:
    it = scheme()
    it.prepare(blank())
    assert not torch.equal(it.generate(blank(), 0), it.generate(blank(), 1))


def test_a_teacher_without_batch_norm_remembers_nothing() -> None:
    with pytest.raises(ValueError, match=r"no BatchNorm .* set scheme\.statistics: 0"):
        scheme(statistics=1.0).prepare(blank())
    scheme(statistics=0.0).prepare(blank())


def test_a_generator_without_bounds_is_refused() -> None:
    generator: Any = nn.Sequential(nn.Linear(4, 36), nn.Unflatten(1, (1, 6, 6)))
    generator.latent = 4
    one = DAFL(classifier(4), Frozen(classifier(6)), {"kd": KD(1.0)}, generator)
    with pytest.raises(ValueError, match=r"scheme\.generator: wrong values .* in \[0, 1\]"):
        one.prepare(blank())
    bounded: Any = nn.Sequential(*generator, nn.Sigmoid())
    bounded.latent = 4
    DAFL(classifier(4), Frozen(classifier(6)), {"kd": KD(1.0)}, bounded).prepare(blank())


def test_labels_of_the_data_are_not_those_of_generated_images() -> None:
    losses = {"kd": KD(1.0), "cross_entropy": CrossEntropy()}
    labelled = blank() | {"label": torch.arange(16) % 5}
    one = DAFL(classifier(4), Frozen(classifier(6)), losses, maker())
    with pytest.raises(ValueError, match=r"objectives\.cross_entropy: CrossEntropy needs labels"):
        one.prepare(labelled)
    assert (scheme().before_step(labelled)["label"] == UNLABELLED).all()
