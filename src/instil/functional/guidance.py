"""Classifier-free guidance of diffusion models and the embedding of its scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.functional.progressive import per_sample


def guided_prediction(conditional: Tensor, unconditional: Tensor, scale: Tensor) -> Tensor:
    """Prediction ``conditional + scale * (conditional - unconditional)``.

    Ho & Salimans 2022, Eq. 6. The prediction may be a clean sample, noise or a velocity.

    Args:
        conditional: prediction with the condition (N, ...).
        unconditional: prediction without it, of the same shape.
        scale: scale of each sample (N,); 0 for no guidance.

    Returns:
        (N, ...).

    Example:
        >>> guided_prediction(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0.5]))
        tensor([[1.5000, 1.5000]])
    """
    return conditional + per_sample(scale, conditional) * (conditional - unconditional)


def guidance_embedding(scale: Tensor, size: int, factor: float = 1000.0) -> Tensor:
    """Sines and cosines of a guidance scale (Luo et al. 2023, section 4.3).

    Args:
        scale: scale of each sample (N,).
        size: number of entries, even and at least 4.
        factor: factor of the scale before the sines.

    Returns:
        (N, size).

    Example:
        >>> guidance_embedding(torch.zeros(1), 4)
        tensor([[0., 0., 1., 1.]])
    """
    half = size // 2
    exponents = torch.arange(half, dtype=scale.dtype, device=scale.device) / (half - 1)
    angles = factor * scale[:, None] * (-math.log(10000.0) * exponents).exp()
    return torch.cat([angles.sin(), angles.cos()], 1)
