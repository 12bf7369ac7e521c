"""Log-probabilities of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, to_float32
from instil.items import drop_unlabelled_gradient


def token_log_probs(logits: Tensor, token: Tensor) -> Tensor:
    """Log-probabilities of tokens under logits.

    Args:
        logits: (N, T, V).
        token: token indices (N, T); ``-100`` marks a position without a token.

    Returns:
        Log-probabilities (N, T), float32; 0 at positions without a token.
    """
    has_token = token != UNLABELLED
    (logits,) = drop_unlabelled_gradient(token, logits)
    log = to_float32(logits).log_softmax(-1).gather(-1, token.clamp_min(0)[..., None]).squeeze(-1)
    return torch.where(has_token, log, 0.0)
