"""Log-probabilities of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, drop_unlabelled_gradient, to_float32


def token_log_probs(logits: Tensor, token: Tensor) -> Tensor:
    """Of tokens (N, T), -100 where there is none, the log-probability by logits (N, T, V) at their places, 0 where there is none."""
    there = token != UNLABELLED
    (logits,) = drop_unlabelled_gradient(token, logits)
    log = to_float32(logits).log_softmax(-1).gather(-1, token.clamp_min(0)[..., None]).squeeze(-1)
    return torch.where(there, log, 0.0)
