"""Consistency models: pseudo-Huber distance, noise level of the target, and its weight."""

from __future__ import annotations

import torch
from torch import Tensor


def pseudo_huber(squared: Tensor, width: float) -> Tensor:
    """Pseudo-Huber distance ``sqrt(squared + width ** 2) - width`` of squared distances.

    Args:
        squared: squared distances, in any shape.
        width: distance at which the value turns from quadratic to linear; 0: the plain distance.

    Returns:
        Distances in the same shape.

    Example:
        >>> pseudo_huber(torch.tensor([16.0]), 3.0)
        tensor([2.])
    """
    # The gradient of a root at 0 is infinite.
    tiny = torch.finfo(squared.dtype).tiny
    return (squared + max(width**2, tiny)).sqrt() - width


def earlier_ratio(
    ratio: Tensor, progress: float, doublings: int = 8, steepness: float = 8.0, shift: float = 1.0
) -> Tensor:
    """Noise level of the target, which approaches that of the prediction during training.

    Easy consistency tuning (Geng et al. 2025, section 3.2):
    ``r = t * (1 - n(t) / 2 ** stage)`` with ``n(t) = 1 + k * sigmoid(-b * t)``. In the first of
    ``doublings`` stages the target is nearly clean, so that the loss is that of diffusion.

    Args:
        ratio: noise level ``t = sigma / alpha`` of each image (N,).
        progress: share of the training that has passed, in [0, 1].
        doublings: number of stages; the relative gap halves in each.
        steepness: ``k``, the additional gap at low noise.
        shift: ``b``, the decrease of the additional gap with the noise.

    Returns:
        (N,), from 0 to ``ratio``.

    Example:
        >>> earlier_ratio(torch.tensor([1.0]), 0.0), earlier_ratio(torch.tensor([1.0]), 1.0)
        (tensor([0.]), tensor([0.9877]))
    """
    stage = 1 + min(int(progress * doublings), doublings - 1)
    gap = (1 + steepness * torch.sigmoid(-shift * ratio)) / 2**stage
    earlier: Tensor = ratio * (1 - gap).clamp_min(0)
    return earlier


def relative_gap(ratio: Tensor, earlier: Tensor) -> Tensor:
    """Weight ``1 / (t - r)`` of consistency training, finite for equal noise levels.

    Args:
        ratio: noise level ``t = sigma / alpha`` of the student (N,).
        earlier: noise level ``r`` of the target (N,).

    Example:
        >>> relative_gap(torch.tensor([1.0]), torch.tensor([0.5]))
        tensor([2.])
    """
    return 1 / (ratio - earlier).clamp_min(torch.finfo(ratio.dtype).eps)
