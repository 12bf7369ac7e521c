"""Renyi accounting of noisy votes by their margins (Papernot et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from instil.functional.privacy import accounting

ORDERS = (*(1 + step / 10 for step in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)
"""Renyi orders among which the best one is taken."""


def gnmax_rdp(counts: Tensor, noise: float, orders: Sequence[float] = ORDERS) -> Tensor:
    """Renyi privacy of the class with the most votes after Gaussian noise, by the votes.

    The bound of Theorem 6 with the orders of Proposition 10, for the probability of another class
    of Proposition 7 (Papernot et al. 2018). It is at most order / noise ** 2, the bound for all
    votes. It depends on the private data, so that its value must not be published.

    Args:
        counts: numbers of votes (N, C).
        noise: standard deviation of the noise on each count.
        orders: K Renyi orders, all > 1.

    Returns:
        Divergence of each vote at each order (N, K), float64.

    Example:
        >>> clear, close = gnmax_rdp(torch.tensor([[250, 0], [130, 120]]), 40.0, [2.0]).flatten()
        >>> print(f"{clear:.2e} {close:.2e}")
        1.89e-06 1.25e-03
    """
    ordered = counts.double().sort(dim=1, descending=True).values
    gaps = ordered[:, :1] - ordered[:, 1:]
    log_q = torch.special.log_ndtr(-gaps / (math.sqrt(2) * noise)).logsumexp(1)
    log_q = log_q.clamp_max(math.log(1 - 1 / counts.shape[1]))
    return likely_outcome_rdp(log_q, noise, orders)


def votes_epsilon(
    counts: Tensor,
    is_answered: Tensor,
    noise: float,
    delta: float,
    threshold: float | None = None,
    threshold_noise: float = 1.0,
) -> float:
    """Epsilon of noisy votes by their margins, with Gaussian noise.

    Each answer costs ``gnmax_rdp``, and each comparison with a threshold ``threshold_rdp``. The
    value depends on the private data. It may be published only after noise by its smooth
    sensitivity (Papernot et al. 2018, appendix B), which is not computed.

    Args:
        counts: numbers of votes of all questions (N, C).
        is_answered: which questions got an answer (N,).
        noise: standard deviation of the noise on each count.
        delta: probability for which the bound may fail.
        threshold: votes that the first class needs for an answer; None: there is no comparison.
        threshold_noise: standard deviation of the noise of the comparison.

    Returns:
        Epsilon, at most that for all votes.

    Raises:
        ImportError: if the extra ``privacy`` is not installed.
    """
    compute_epsilon = accounting().rdp.compute_epsilon
    divergence = gnmax_rdp(counts[is_answered], noise).sum(0)
    if threshold is not None:
        divergence += threshold_rdp(counts.amax(1), threshold, threshold_noise).sum(0)
    return float(compute_epsilon(ORDERS, divergence.tolist(), delta)[0])


def threshold_rdp(
    largest: Tensor, threshold: float, noise: float, orders: Sequence[float] = ORDERS
) -> Tensor:
    """Renyi privacy of a comparison of the largest count with a threshold, by the votes.

    One record changes the largest count by 1 at most, half as much as the margin of a vote. The
    bound is therefore that of a vote with sqrt(2) times the noise.

    Args:
        largest: largest number of votes of each question (N,).
        threshold: number of votes that is needed after noise.
        noise: standard deviation of the noise on the largest count.
        orders: K Renyi orders, all > 1.

    Returns:
        Divergence of each comparison at each order (N, K), float64.
    """
    distance = (threshold - largest.double()).abs()
    return likely_outcome_rdp(
        torch.special.log_ndtr(-distance / noise), math.sqrt(2) * noise, orders
    )


def likely_outcome_rdp(log_q: Tensor, noise: float, orders: Sequence[float]) -> Tensor:
    """Renyi privacy of a mechanism with one likely outcome (Papernot et al. 2018, Theorem 6).

    Args:
        log_q: logarithm of a bound on the probability of all other outcomes (N,).
        noise: number for which the mechanism has (a, a / noise ** 2) Renyi privacy at all orders a.
        orders: K orders, all > 1.

    Returns:
        Divergence (N, K), float64.
    """
    order = torch.tensor(orders, dtype=torch.float64)
    log_q = log_q.double()[:, None]
    higher = noise * (-log_q).sqrt()
    highest = higher + 1
    epsilon = higher / noise**2
    # Where the theorem does not hold, the values below are replaced and may be NaN.
    limit = (higher - 1) * epsilon - higher * (
        (highest / (highest - 1)).log() + (higher / (higher - 1)).log()
    )
    holds = (higher > 1) & (-log_q > epsilon) & (log_q <= limit) & (highest >= order)
    log_p = _log1mexp(log_q)
    log_a = log_p - _log1mexp((log_q + epsilon) * (higher - 1) / higher)
    log_b = highest / noise**2 - log_q / (highest - 1)
    sum_of_both = torch.logaddexp(log_p + (order - 1) * log_a, log_q + (order - 1) * log_b)
    for_all_data = (order / noise**2).expand(len(log_q), -1)
    by_votes = torch.where(holds, sum_of_both / (order - 1), for_all_data)
    # Without any other outcome nothing is published.
    by_votes = torch.where(log_q == -torch.inf, 0.0, by_votes)
    return torch.minimum(by_votes, for_all_data)


def _log1mexp(value: Tensor) -> Tensor:
    """Logarithm of 1 - exp(value) of negative numbers, without cancellation."""
    return torch.where(
        value < -math.log(2), (-value.exp()).log1p(), (-torch.special.expm1(value)).log()
    )
