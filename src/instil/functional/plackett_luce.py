"""Plackett-Luce model of rankings.

A ranking is a sequence of choices among the remaining items, with probabilities proportional to
the exponential of their scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32


def choice_nll(scores: Tensor) -> Tensor:
    """Negative log-probability that each item is chosen before all that follow it.

    Their sum is the negative log-probability of the ranking (Plackett 1975; Luce 1959).

    Args:
        scores: (..., K) in order of rank. Scores of -inf at the end mark impossible items.

    Returns:
        (..., K); 0 for the last item and for impossible items.
    """
    scores = to_float32(scores)
    # The lowest finite score has probability 0 too, but differences of two of them are 0, not NaN.
    scores = scores.clamp_min(torch.finfo(scores.dtype).min)
    return scores.flip(-1).logcumsumexp(-1).flip(-1) - scores
