"""Noisy votes of members trained on private data, and their privacy cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dp_accounting import ComposedDpEvent, GaussianDpEvent, LaplaceDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from instil.core import Batch
from instil.functional.gnmax import ORDERS, gnmax_rdp, threshold_rdp
from instil.functional.privacy import noise_like, privacy_epsilon
from instil.teachers.private_votes import PrivateVotes
from instil.testing import check_teacher
from tests.nets import batch, net


def cast(**options: object) -> PrivateVotes:
    teacher = PrivateVotes([net(seed=seed) for seed in range(9)], **options)
    teacher.precompute([part(range(8)), part(range(8, 16))])
    return teacher


def part(rows: range) -> Batch:
    return {key: value[list(rows)] for key, value in batch().items()}


def counts() -> torch.Tensor:
    """Return the votes by hand, (16, 5)."""
    votes = np.stack([net(seed=seed)(batch())["logits"].argmax(1).numpy() for seed in range(9)])
    return torch.tensor([[int((votes[:, n] == c).sum()) for c in range(5)] for n in range(16)])


def test_contracts() -> None:
    check_teacher(cast, batch())


def test_almost_without_noise_it_is_the_plurality() -> None:
    expected = counts()
    label = cast(noise=1e-6)({"index": torch.arange(16)})["label"]
    assert torch.equal(expected.gather(1, label[:, None]).squeeze(1), expected.amax(1))


def test_noise_moves_answers_and_a_seed_fixes_it() -> None:
    quiet, loud = (cast(noise=noise)(batch())["label"] for noise in (1e-6, 50.0))
    assert (quiet != loud).any()
    assert torch.equal(loud, cast(noise=50.0)(batch())["label"])
    assert (loud != cast(noise=50.0, seed=1)(batch())["label"]).any()


def test_only_clear_votes_are_answered_and_at_most_so_many() -> None:
    clear = counts().amax(1) >= 4
    assert 0 < clear.sum() < 16
    label = cast(noise=1e-6, threshold=3.5, threshold_noise=1e-6)(batch())["label"]
    assert torch.equal(label != -100, clear)
    few = cast(noise=1e-6, threshold=3.5, threshold_noise=1e-6, answers=2)
    assert torch.equal(
        (few(batch())["label"] != -100).nonzero().flatten(), clear.nonzero().flatten()[:2]
    )
    assert few.privacy_cost()["answered"] == 2


def test_each_question_is_answered_once() -> None:
    teacher = cast()
    before = teacher(batch())["label"]
    other = batch(seed=5) | {"index": torch.arange(16)}  # an augmented view of the same samples
    assert torch.equal(teacher(other)["label"], before)
    assert teacher.privacy_cost()["questions"] == 16
    with pytest.raises(RuntimeError, match="the votes are collected"):
        teacher.precompute([batch()])


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_the_noise_has_the_scale_that_is_accounted_for(mechanism: str) -> None:
    noise = noise_like(
        torch.zeros(200, 500), 3.0, mechanism, torch.Generator().manual_seed(0)
    ).flatten()  # type: ignore[arg-type]
    deviation = 3.0 if mechanism == "gaussian" else 3.0 * 2**0.5
    kurtosis = 3.0 if mechanism == "gaussian" else 6.0
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(deviation, rel=0.02)
    assert float((noise**4).mean() / noise.square().mean() ** 2) == pytest.approx(
        kurtosis, rel=0.05
    )


def test_the_budget_is_the_librarys() -> None:
    def epsilon(*events: object) -> float:
        return float(RdpAccountant().compose(ComposedDpEvent(list(events))).get_epsilon(1e-6))

    assert cast(noise=7.0, delta=1e-6).privacy_cost()["epsilon"] == epsilon(
        SelfComposedDpEvent(GaussianDpEvent(7 / math.sqrt(2)), 16)
    )
    assert cast(noise=7.0, mechanism="laplace", delta=1e-6).privacy_cost()["epsilon"] == epsilon(
        SelfComposedDpEvent(LaplaceDpEvent(3.5), 16)
    )
    confident = cast(
        noise=7.0, threshold=3.0, threshold_noise=9.0, answers=5, delta=1e-6
    ).privacy_cost()["epsilon"]
    votes, comparisons = (
        SelfComposedDpEvent(GaussianDpEvent(7 / math.sqrt(2)), 5),
        SelfComposedDpEvent(GaussianDpEvent(9.0), 16),
    )
    assert confident == epsilon(votes, comparisons)


def test_the_margins_of_the_votes_give_a_smaller_budget() -> None:
    teacher = cast(noise=1.0, threshold=4.0, threshold_noise=2.0)
    cost = teacher.privacy_cost()
    expected = gnmax_rdp(counts()[teacher.is_answered], 1.0).sum(0)
    expected += threshold_rdp(counts().amax(1), 4.0, 2.0).sum(0)
    assert cost["votes_epsilon"] == compute_epsilon(ORDERS, expected.tolist(), 1e-5)[0]
    assert 0 < cost["votes_epsilon"] <= cost["epsilon"]
    assert "votes_epsilon" not in cast(mechanism="laplace").privacy_cost()


def test_the_bound_of_the_paper() -> None:
    """The library's conversion is at most the bound of the paper.

    A vote has (a, a / noise²) Rényi privacy, so the bound is the minimum over a of
    n a / noise² + log(1 / delta) / (a - 1).
    """
    n, noise, delta = 300, 40.0, 1e-5
    alpha = 1 + math.sqrt(noise**2 * math.log(1 / delta) / n)
    paper = n * alpha / noise**2 + math.log(1 / delta) / (alpha - 1)
    computed = privacy_epsilon(n, n, noise, delta=delta)
    assert 0.8 * paper < computed <= paper


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="private votes need members"):
        PrivateVotes([])
    unmet = PrivateVotes([net()])
    for ask in (lambda: unmet(batch()), unmet.privacy_cost):
        with pytest.raises(RuntimeError, match="no vote was collected"):
            ask()
    with pytest.raises(ValueError, match="sample 16 has no vote"):
        cast()({"index": torch.tensor([16])})
    with pytest.raises(ValueError, match="a sample occurs twice"):
        PrivateVotes([net()]).precompute([batch(), batch()])


def test_a_threshold_that_no_class_reaches_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no sample got an answer: no class has 40 of 9 votes"):
        cast(noise=1.0, threshold=40.0, threshold_noise=1.0)
