"""Log-probabilities of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, to_float32
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.sampled import SampledForwardKL
from instil.items import drop_unlabelled_gradient
from instil.roles import Sampled


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


def chunked_log_probs(signal: Signal, token: Tensor, vocabulary: int | None = None) -> Tensor:
    """Log-probabilities of tokens in constant memory.

    The logits of a projection are computed for a few positions at a time, and once more in the
    backward pass unless all tokens have one weight.

    Args:
        signal: logits (N, T, V), or a projection with hidden states (N, T, H).
        token: token indices (N, T); ``-100`` marks a position without a token.
        vocabulary: number of classes; the others are padding with probability 0. None: all.

    Returns:
        Log-probabilities (N, T), float32; 0 at positions without a token.

    Example:
        >>> chunked_log_probs(torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]), torch.tensor([[1, -100]]))
        tensor([[-0.3133,  0.0000]])
    """
    ids = token.clamp_min(0)[..., None]
    certain = Sampled(ids, torch.zeros_like(ids, dtype=torch.float32), None)
    has_token = (token != UNLABELLED).float()
    losses = chunked_loss(signal, SampledForwardKL(certain, 1.0), 1.0, has_token, vocabulary)
    return 0.0 - losses
