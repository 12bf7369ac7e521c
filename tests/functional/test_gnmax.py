"""Renyi accounting of noisy votes by their margins, against exact divergences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from instil.functional.gnmax import (
    ORDERS,
    gnmax_rdp,
    likely_outcome_rdp,
    threshold_rdp,
    votes_epsilon,
)
from instil.functional.privacy import privacy_epsilon


def divergence(x: float, y: float, order: float) -> float:
    """Renyi divergence of two coins, whose probabilities are tails of the normal distribution."""
    sides = [order * norm.logsf(s * x) + (1 - order) * norm.logsf(s * y) for s in (1, -1)]
    return float(np.logaddexp(*sides)) / (order - 1)


def theorem(q: float, noise: float, order: float) -> float:
    """Theorem 6 with the orders of Proposition 10, in plain numbers."""
    mu_2 = noise * math.sqrt(math.log(1 / q))
    mu_1 = mu_2 + 1
    eps_1, eps_2 = mu_1 / noise**2, mu_2 / noise**2
    a = (1 - q) / (1 - (q * math.exp(eps_2)) ** ((mu_2 - 1) / mu_2))
    b = math.exp(eps_1) / q ** (1 / (mu_1 - 1))
    return math.log((1 - q) * a ** (order - 1) + q * b ** (order - 1)) / (order - 1)


@pytest.mark.parametrize("noise", [5.0, 20.0, 40.0])
def test_the_bound_is_never_below_the_exact_divergence(noise: float) -> None:
    """For two classes the answer is a coin, and a neighbour moves one vote to the other class."""
    for gap in range(0, 200, 20):
        counts = torch.tensor([[(200 + gap) / 2, (200 - gap) / 2]])
        bounds = gnmax_rdp(counts, noise, [1.5, 5.0, 20.0])[0]
        scale = math.sqrt(2) * noise
        for order, bound in zip([1.5, 5.0, 20.0], bounds.tolist(), strict=True):
            assert bound <= order / noise**2 * (1 + 1e-12)
            for other in (gap - 2, gap + 2):
                exact = divergence(gap / scale, other / scale, order)
                assert bound >= exact - 1e-13


def test_a_comparison_is_never_below_the_exact_divergence() -> None:
    for largest in (80, 100, 140, 200):
        for order in (1.5, 5.0, 20.0):
            bound = float(threshold_rdp(torch.tensor([largest]), 100.0, 10.0, [order])[0, 0])
            assert bound <= order / (2 * 10.0**2) * (1 + 1e-12)
            for other in (largest - 1, largest + 1):
                answers = [(100 - count) / 10 for count in (largest, other)]
                assert bound >= divergence(*answers, order) - 1e-13


@pytest.mark.parametrize("q", [1e-6, 1e-9])
def test_the_formula_of_the_paper(q: float) -> None:
    bound = likely_outcome_rdp(torch.tensor([math.log(q)]), 40.0, [2.0, 8.0, 32.0])[0]
    expected = [min(theorem(q, 40.0, order), order / 1600) for order in (2.0, 8.0, 32.0)]
    assert bound.tolist() == pytest.approx(expected, rel=1e-6)
    assert bound[0] < 2 / 1600


def test_several_classes_have_the_union_bound() -> None:
    counts = torch.tensor([[150.0, 60.0, 40.0]])
    q = sum(norm.sf(gap / (math.sqrt(2) * 20)) for gap in (90, 110))
    expected = likely_outcome_rdp(torch.tensor([math.log(q)]), 20.0, [3.0])
    assert float(gnmax_rdp(counts, 20.0, [3.0])) == pytest.approx(float(expected), rel=1e-6)


def test_close_votes_cost_as_much_as_all_data_and_clear_ones_less() -> None:
    answered = torch.ones(100, dtype=torch.bool)
    close = torch.tensor([[26.0, 24.0]]).expand(100, 2)
    clear = torch.tensor([[250.0, 0.0]]).expand(100, 2)
    for_all = privacy_epsilon(100, 100, 40.0)
    assert votes_epsilon(close, answered, 40.0, 1e-5) == pytest.approx(for_all, rel=1e-6)
    assert votes_epsilon(clear, answered, 40.0, 1e-5) < for_all / 3
    few = torch.arange(100) < 10
    assert votes_epsilon(close, few, 40.0, 1e-5) < for_all / 2


def test_certain_and_extreme_votes_are_finite() -> None:
    counts = torch.tensor([[1e6, 0.0], [0.0, 0.0], [1.0, 1.0]])
    for noise in (1e-3, 1.0, 1e4):
        bound = gnmax_rdp(counts, noise, ORDERS)
        assert bound.isfinite().all()
        assert (bound >= 0).all()
