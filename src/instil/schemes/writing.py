"""Helpers of schemes whose students learn from written text: choices by step, and log-probabilities of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, drop_unlabelled_gradient, full, uniform


def by_step(batch: Batch, salt: int) -> float:
    """A number in [0, 1) of (seed, step) alone, alike for all micro-batches and ranks."""
    return float(
        uniform(
            {key: batch[key] for key in ("seed", "step") if key in batch}
            | {"index": torch.zeros(1, dtype=torch.int64)},
            1,
            salt,
        )
    )


def log_probabilities(logits: Tensor, token: Tensor) -> Tensor:
    """Of tokens (N, T), -100 where there is none, the log-probability by logits (N, T, V) at their places, 0 where there is none."""
    there = token != UNLABELLED
    (logits,) = drop_unlabelled_gradient(token, logits)
    log = full(logits).log_softmax(-1).gather(-1, token.clamp_min(0)[..., None]).squeeze(-1)
    return torch.where(there, log, 0.0)
