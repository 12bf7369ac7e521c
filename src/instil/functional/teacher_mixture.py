"""Mixture of several teachers with learned weights, and their shares of the feature levels."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32


def teacher_log_weights(pooled: Tensor, factors: Tensor, vector: Tensor) -> Tensor:
    """Log-weights of K teachers for each sample (Liu et al. 2020, AMTML-KD).

    Log-softmax over the teachers of ``v . (theta * beta)``.

    Args:
        pooled: pooled features beta of the student (N, D).
        factors: one latent vector theta for each teacher (K, D).
        vector: scoring vector v (D,).

    Returns:
        Log-weights (K, N).

    Example:
        >>> import torch
        >>> teacher_log_weights(torch.ones(1, 2), torch.eye(2), torch.tensor([1.0, 0.0])).exp()
        tensor([[0.7311],
                [0.2689]])
    """
    return (factors * vector @ pooled.mT).log_softmax(0)


def mixture_log_probability(
    teacher_logits: Tensor, log_weights: Tensor, temperature: float = 5.0
) -> Tensor:
    """Log of the weighted mean of the softmax outputs of K teachers.

    Args:
        teacher_logits: (K, N, C).
        log_weights: log-weights of the teachers (K, N).
        temperature: softmax temperature, > 0.

    Returns:
        Log-probabilities (N, C), -inf for a class that no teacher considers possible.

    Example:
        >>> import torch
        >>> log_weights = torch.full((2, 1), 0.5).log()
        >>> mixture_log_probability(torch.eye(2)[:, None], log_weights).exp()
        tensor([[0.5000, 0.5000]])
    """
    shares = zip(log_weights.exp().unsqueeze(-1), to_float32(teacher_logits), strict=True)
    terms = [share * (logits / temperature).softmax(-1) for share, logits in shares]
    mixture: Tensor = sum(terms[1:], terms[0])
    log_mixture = mixture.clamp_min(torch.finfo(mixture.dtype).tiny).log()
    return log_mixture.masked_fill(mixture == 0, -torch.inf)


def levels_of_member(
    pairs: list[tuple[int, int]], index: int, num_members: int
) -> list[tuple[int, int]]:
    """Contiguous part of the paired feature levels that belongs to one teacher.

    Args:
        pairs: all pairs (student level, teacher level), from shallow to deep.
        index: index of the teacher.
        num_members: number of teachers.

    Returns:
        Pairs of this teacher, at least one.

    Example:
        >>> levels_of_member([(0, 0), (1, 1), (2, 2)], index=1, num_members=2)
        [(1, 1), (2, 2)]
    """
    start = index * len(pairs) // num_members
    stop = (index + 1) * len(pairs) // num_members
    return pairs[start : max(start + 1, stop)]
