"""Ensembles of the logits of peers, and the scheme that learns from them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instil.engine import Engine, Optimization
from instil.functional.peer_ensembles import (
    best_logits,
    error_products,
    general_logits,
    linear_logits,
    minimum_logits,
)
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.online.kdcl import KDCL
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import batch, net, timed

TARGETS: Any = ["best", "linear", "minimum", "general", "mean"]


def make_scheme(target: Any = "minimum", momentum: float = 0.5) -> KDCL:
    return KDCL(
        net(4),
        [net(6, 1), net(8, 2)],
        {"cross_entropy": CrossEntropy(), "kd": KD()},
        target,
        momentum,
    )


def sample(
    nets: int = 3, num_samples: int = 7, classes: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (nets, num_samples, classes)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (num_samples,), generator=generator)


@pytest.mark.parametrize("target", TARGETS)
def test_contracts(target: Any) -> None:
    check_scheme(lambda: make_scheme(target), lambda step: batch(seed=step))


def test_best_is_the_network_with_the_lowest_cross_entropy() -> None:
    logits, label = sample()
    losses = [[float(F.cross_entropy(one[n], label[n])) for n in range(7)] for one in logits]
    best = best_logits(logits, label)
    for n in range(7):
        assert torch.equal(best[n], logits[int(np.argmin([of[n] for of in losses])), n])
    assert torch.equal(
        best_logits(logits, label, "batch"), logits[int(np.argmin([np.mean(of) for of in losses]))]
    )


def test_minimum_is_relative_to_the_logit_of_the_label() -> None:
    logits, label = sample()
    minimum = minimum_logits(logits, label)
    for n, c in itertools.product(range(7), range(5)):
        assert float(minimum[n, c]) == pytest.approx(
            min(float(one[n, c] - one[n, label[n]]) for one in logits)
        )
    assert all(F.cross_entropy(minimum, label) <= F.cross_entropy(one, label) for one in logits)


@pytest.mark.parametrize("nets", [2, 3])
def test_linear_is_the_convex_combination_of_the_lowest_cross_entropy(nets: int) -> None:
    logits, label = sample(nets)
    losses = F.cross_entropy(linear_logits(logits, label), label, reduction="none")
    grid = [
        w for w in itertools.product(np.linspace(0, 1, 101), repeat=nets - 1) if sum(w) <= 1 + 1e-9
    ]
    mixes = torch.stack(
        [sum(a * one for a, one in zip((*w, 1 - sum(w)), logits, strict=True)) for w in grid]
    )  # type: ignore[misc]
    best = torch.stack([F.cross_entropy(mix, label, reduction="none") for mix in mixes]).amin(0)
    assert (losses <= best + 1e-3).all()


def test_general_weights_are_the_inverse_of_uncorrelated_errors() -> None:
    logits, label = sample()
    products = error_products(logits, label)
    wrong = logits.softmax(-1).numpy() - np.eye(5)[label]
    for n in range(7):
        assert np.allclose(products[n], wrong[:, n] @ wrong[:, n].T)
    errors = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    weights = np.array([4.0, 2.0, 1.0]) / 7
    assert np.allclose(
        general_logits(logits, errors), np.einsum("k,knc->nc", weights, logits), atol=5e-3
    )
    correlated = torch.tensor([[1.0, 1.9], [1.9, 4.0]], dtype=torch.float64)
    assert torch.equal(general_logits(logits[:2], correlated), logits[0]), (
        "no network has a negative weight"
    )


def test_the_errors_are_a_moving_average_over_the_labelled_samples() -> None:
    scheme = make_scheme("general", momentum=0.5)
    scheme.prepare(batch())
    logits = torch.stack(
        [one(batch())["logits"].detach() for one in (scheme.student, *scheme.peers)]
    )
    labelled = batch()["label"] >= 0
    expected = 0.5 * torch.eye(3) + 0.5 * error_products(logits, batch()["label"])[labelled].mean(0)
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.0}))
    train_step(engine, scheme, [timed()])
    assert torch.allclose(scheme.errors, expected, atol=1e-6)
    train_step(engine, scheme, [timed() | {"label": torch.full((16,), -100)}])
    assert torch.allclose(scheme.errors, expected, atol=1e-6), (
        "a step without labels changes nothing"
    )


def test_unlabelled_samples_learn_from_the_mean_and_the_student_is_exported() -> None:
    scheme = make_scheme()
    scheme.prepare(batch())
    outputs = [one(batch()) for one in (scheme.student, *scheme.peers)]
    logits = torch.stack([one["logits"] for one in outputs])
    ensemble = scheme.ensemble_logits(outputs, batch())
    assert torch.equal(ensemble[1::2], logits.mean(0)[1::2])
    assert torch.equal(ensemble[::2], minimum_logits(logits, batch()["label"])[::2])
    assert scheme.export() is scheme.student


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="needs at least one peer"):
        KDCL(net(4), [], {"kd": KD()})
    with pytest.raises(
        ValueError,
        match=r"scheme\.target: minimum depends on labels\. Expected 'label' in the batch, got x\.",
    ):
        KDCL(net(4), [net(6)], {"kd": KD()}).prepare({"x": batch()["x"]})
    KDCL(net(4), [net(6)], {"kd": KD()}, "mean").prepare({"x": batch()["x"]})
