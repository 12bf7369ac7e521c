"""The Plackett-Luce model: a ranking is a chain of choices, each among those that are left, in proportion to the exponential of a score."""

from __future__ import annotations

from torch import Tensor

from instil.core import full


def choice_surprise(scores: Tensor) -> Tensor:
    """Minus log-probability that each is chosen before all that follow: scores (..., K) in order of rank give (..., K), the last one 0.

    Their sum is minus the log-probability of the ranking (Plackett 1975; Luce 1959).
    """
    scores = full(scores)
    return scores.flip(-1).logcumsumexp(-1).flip(-1) - scores
