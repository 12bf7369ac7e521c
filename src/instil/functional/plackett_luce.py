"""The Plackett-Luce model: a ranking is a chain of choices, each among those that are left, in proportion to the exponential of a score."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32


def choice_nll(scores: Tensor) -> Tensor:
    """Minus log-probability that each is chosen before all that follow: scores (..., K) in order of rank give (..., K), the last one 0.

    Their sum is minus the log-probability of the ranking (Plackett 1975; Luce 1959). Scores of minus infinity at the end of the ranking are of
    impossible choices: their surprise is 0 and the other choices do not change.
    """
    scores = to_float32(scores)
    # The lowest finite score has probability 0 too, but differences of two of them are 0, not NaN.
    scores = scores.clamp_min(torch.finfo(scores.dtype).min)
    return scores.flip(-1).logcumsumexp(-1).flip(-1) - scores
