"""Directions of vectors and their inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32

SHORTEST = 1e-6
"""A vector shorter than this has no direction: dead units must not get a gradient that their length divides."""


def l2_normalize(values: Tensor, dim: int = -1, through_length: bool = True) -> Tensor:
    """Vectors along ``dim`` at length 1, in full precision; one without a direction becomes zero, without a gradient.

    ``through_length=False``: the lengths are constants for the gradient.
    """
    values = to_float32(values)
    length = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    if not through_length:
        length = length.detach()
    return values * torch.where(length > SHORTEST, length.clamp_min(SHORTEST).reciprocal(), 0.0)


def cosine(one: Tensor, two: Tensor) -> Tensor:
    """Inner product of the directions of two tensors of vectors (..., D): (...). Zero, without a gradient, where one has no direction."""
    one, two = to_float32(one), to_float32(two)
    lengths = [torch.linalg.vector_norm(side, dim=-1) for side in (one, two)]
    there = (lengths[0] > SHORTEST) & (lengths[1] > SHORTEST)
    return (one * two).sum(-1) * torch.where(
        there, (lengths[0].clamp_min(SHORTEST) * lengths[1].clamp_min(SHORTEST)).reciprocal(), 0.0
    )


def pairwise_dot(one: Tensor, two: Tensor) -> Tensor:
    """Inner products of all rows of ``one`` (..., M, D) with all rows of ``two`` (..., K, D), in full precision under autocast too: (..., M, K)."""
    with torch.autocast(one.device.type, enabled=False):
        return to_float32(one) @ to_float32(two).mT


def angle_cosines(samples: Tensor) -> Tensor:
    """[i, j, k]: the cosine of the angle at row i of (N, D) between rows j and k; 0 where two of them are one."""
    directions = l2_normalize(samples[None] - samples[:, None])
    return pairwise_dot(directions, directions)
