"""Ensembles of the logits of several networks (Guo et al. 2020)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from instil.core import to_float32

BISECTION_STEPS = 30
RIDGE = 1e-3


def best_logits(logits: Tensor, target: Tensor, per: str = "sample") -> Tensor:
    """Select the logits of the network with the lowest cross-entropy (KDCL-Naive).

    Args:
        logits: logits of K networks (K, N, C).
        target: class indices (N,).
        per: ``"sample"`` selects a network for each sample, ``"batch"`` one for all.

    Returns:
        Logits (N, C).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
        >>> best_logits(logits, torch.tensor([1]))
        tensor([[0., 2.]])
    """
    losses = torch.stack([F.cross_entropy(one, target, reduction="none") for one in logits])
    best = losses.argmin(0) if per == "sample" else losses.mean(1).argmin().expand(len(target))
    return logits.gather(0, best.view(1, -1, 1).expand(1, *logits.shape[1:])).squeeze(0)


def minimum_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the minimum over the networks of the logits relative to the label's (KDCL-MinLogit).

    Args:
        logits: logits of K networks (K, N, C).
        target: class indices (N,); negative ones are treated as 0.

    Returns:
        Logits (N, C), 0 for the label.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
        >>> minimum_logits(logits, torch.tensor([1]))
        tensor([[-2.,  0.]])
    """
    index = target.clamp_min(0).view(1, -1, 1).expand(len(logits), -1, 1)
    return (logits - logits.gather(-1, index)).amin(0)


def linear_logits(logits: Tensor, target: Tensor, sweeps: int = 4) -> Tensor:
    """Compute the convex combination of the logits with the lowest cross-entropy (KDCL-Linear).

    Each step moves weight between two networks to the best point, found by bisection. For two
    networks one sweep is exact.

    Args:
        logits: logits of K networks (K, N, C).
        target: class indices (N,); negative ones are treated as 0.
        sweeps: passes over all pairs of networks, for more than two.

    Returns:
        Logits (N, C), combined for each sample.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
        >>> linear_logits(logits, torch.tensor([1])).round(decimals=3)
        tensor([[0., 2.]])
    """
    num_nets, num_samples, _ = logits.shape
    index = target.clamp_min(0).unsqueeze(-1)
    weights = logits.new_full((num_nets, num_samples), 1 / num_nets)

    def loss_rises(point: Tensor, direction: Tensor) -> Tensor:
        expected = (point.softmax(-1) * direction).sum(-1)
        slope = expected - direction.gather(-1, index).squeeze(-1)
        return slope > 0

    pairs = list(itertools.combinations(range(num_nets), 2))
    for i, j in pairs * (sweeps if num_nets > 2 else 1):
        mixture = (weights.unsqueeze(-1) * logits).sum(0)
        direction = logits[i] - logits[j]
        low = -weights[i]
        high = weights[j]
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            rises = loss_rises(mixture + middle.unsqueeze(-1) * direction, direction)
            low = torch.where(rises, low, middle)
            high = torch.where(rises, middle, high)
        shift = (low + high) / 2
        shifts = {i: shift, j: -shift}
        weights = torch.stack([weights[k] + shifts.get(k, 0) for k in range(num_nets)])
    return (weights.unsqueeze(-1) * logits).sum(0)


def general_logits(logits: Tensor, errors: Tensor) -> Tensor:
    """Compute the combination of the logits with the smallest expected error (KDCL-General).

    Args:
        logits: logits of K networks (K, N, C).
        errors: mean inner products of the errors of the networks (K, K), see ``error_products``.

    Returns:
        Logits (N, C).
    """
    num_nets = len(errors)
    scale = errors.diagonal().mean().clamp_min(1e-6)
    ridge = RIDGE * scale * torch.eye(num_nets, device=errors.device, dtype=errors.dtype)
    weights = torch.linalg.solve(errors + ridge, errors.new_ones(num_nets))
    # Correlated errors give negative weights, which would play networks off against each other.
    weights = weights.clamp_min(0)
    shares = (weights / weights.sum()).to(logits.dtype).view(-1, 1, 1)
    combined: Tensor = (shares * logits).sum(0)
    return combined


def error_products(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the inner products of the networks' errors, softmax minus one-hot label.

    Args:
        logits: logits of K networks (K, N, C).
        target: class indices (N,); negative ones are treated as 0.

    Returns:
        Products for each sample (N, K, K).
    """
    index = target.clamp_min(0).view(1, -1, 1).expand(len(logits), -1, 1)
    logits = to_float32(logits)
    ones = torch.ones_like(index, dtype=logits.dtype)
    errors = logits.softmax(-1).scatter_add(-1, index, -ones)
    return torch.einsum("knc,lnc->nkl", errors, errors)
