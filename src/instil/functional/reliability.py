"""Reliability of a teacher's outputs for the nodes of a graph, and losses between neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32

POWERS = torch.logspace(-2, 2, 401)
"""Candidates of the power of the sampling probability."""


def entropy_change(noisy_logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Absolute change of the entropy of a softmax (Wu et al. 2023).

    Args:
        noisy_logits: (n, C), for features with noise.
        clean_logits: (n, C).

    Returns:
        (n,).

    Example:
        >>> entropy_change(torch.zeros(1, 2), torch.tensor([[0.0, 100.0]]))
        tensor([0.6931])
    """
    return (_entropy(noisy_logits) - _entropy(clean_logits)).abs()


def _entropy(logits: Tensor) -> Tensor:
    log_probs = to_float32(logits).log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def sampling_probability(change: Tensor, largest: Tensor, power: Tensor) -> Tensor:
    """Probability ``1 - (change / largest) ** power`` that a node is a target of its neighbours.

    Args:
        change: entropy changes (n,).
        largest: largest entropy change of all nodes (scalar); 0 for unknown.
        power: scalar, > 0.

    Returns:
        (n,), in [0, 1].

    Example:
        >>> largest = torch.tensor(2.0)
        >>> sampling_probability(torch.tensor([0.0, 1.0, 2.0]), largest, torch.tensor(2.0))
        tensor([1.0000, 0.7500, 0.0000])
    """
    relative = change / largest.clamp_min(torch.finfo(change.dtype).tiny)
    return 1 - relative.clamp(0, 1) ** power


def neighbour_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    edge_index: Tensor,
    sampled: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """KL divergences of the student at a node from the teacher there and at its neighbours.

    Args:
        student_logits: (n, C).
        teacher_logits: (n, C).
        edge_index: (2, E), sources and targets of the edges.
        sampled: mask (E,) of the edges that count.
        temperature: softmax temperature, > 0. The values are not multiplied by its square.

    Returns:
        (n + E,): one value per node, then one per edge from the teacher at its source to the
        student at its target, 0 for edges that do not count.

    Example:
        >>> edge_index = torch.tensor([[0], [1]])
        >>> neighbour_kl(torch.zeros(2, 2), 2 * torch.eye(2), edge_index, torch.tensor([True]))
        tensor([0.3278, 0.3278, 0.3278])
    """
    source, target = edge_index[:, sampled]
    student_log_probs = (to_float32(student_logits) / temperature).log_softmax(-1)
    teacher_log_probs = (to_float32(teacher_logits) / temperature).log_softmax(-1)
    own = _kl(student_log_probs, teacher_log_probs)
    values = torch.zeros(edge_index.shape[1], dtype=own.dtype, device=own.device)
    between = _kl(student_log_probs[target], teacher_log_probs[source])
    return torch.cat([own, values.masked_scatter(sampled, between)])


def _kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(-1)


def agreement_by_bin(relative: Tensor, agrees: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Share of nodes where student and teacher agree, by the nodes' relative entropy change.

    Args:
        relative: entropy changes (n,) divided by the largest one.
        agrees: (n,), 1 where both predict the same class and 0 elsewhere.
        bins: number of bins of equal width in [0, 1].

    Returns:
        Centres (b,) of the bins with nodes, and the shares (b,), which are scaled to [0, 1].

    Example:
        >>> agreement_by_bin(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([1.0, 1.0, 0.0]), 2)
        (tensor([0.2500, 0.7500]), tensor([1., 0.]))
    """
    bin_index = (relative.double() * bins).long().clamp(0, bins - 1)
    # Sums of whole numbers in double precision do not depend on their order.
    total = torch.zeros(bins, dtype=torch.float64, device=relative.device)
    hits = total.index_add(0, bin_index, agrees.double())
    total = total.index_add(0, bin_index, torch.ones_like(agrees, dtype=torch.float64))
    share = hits[total > 0] / total[total > 0]
    centres = (torch.arange(bins, device=relative.device) + 0.5) / bins
    spread = (share.max() - share.min()).clamp_min(torch.finfo(torch.float64).tiny)
    return centres[total > 0], ((share - share.min()) / spread).float()


def fit_power(centres: Tensor, share: Tensor) -> Tensor:
    """Power for which ``1 - centres ** power`` is closest to the shares, by least squares.

    Args:
        centres: (b,), in (0, 1).
        share: (b,), in [0, 1].

    Returns:
        Scalar in 0.01 to 100.

    Example:
        >>> centres = torch.tensor([0.25, 0.5, 0.75])
        >>> fit_power(centres, 1 - centres**2)
        tensor(1.9953)
    """
    powers = POWERS.to(centres)
    error = (1 - centres ** powers[:, None] - share).square().sum(1)
    return powers[error.argmin()]
