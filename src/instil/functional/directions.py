"""Directions of vectors and their inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.feature_maps import require_dims

SHORTEST = 1e-6
"""Length below which a vector has no direction: the gradient of a dead unit would explode."""


def l2_normalize(values: Tensor, dim: int = -1, through_length: bool = True) -> Tensor:
    """Scale vectors to length 1, in float32 or better.

    A vector shorter than ``SHORTEST`` becomes zero, without a gradient.

    Args:
        values: tensor of vectors.
        dim: dimension of the vectors' entries.
        through_length: False: the lengths are constants for the gradient.
    """
    require_dims(values, dim + 1 if dim >= 0 else -dim, "embeddings")
    values = to_float32(values)
    length = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    if not through_length:
        length = length.detach()
    return values * torch.where(length > SHORTEST, length.clamp_min(SHORTEST).reciprocal(), 0.0)


def cosine(one: Tensor, two: Tensor) -> Tensor:
    """Cosine similarity of vectors (..., D): (...).

    It is 0, without a gradient, where one vector is shorter than ``SHORTEST``.
    """
    one, two = to_float32(one), to_float32(two)
    first_length = torch.linalg.vector_norm(one, dim=-1)
    second_length = torch.linalg.vector_norm(two, dim=-1)
    has_directions = (first_length > SHORTEST) & (second_length > SHORTEST)
    product = first_length.clamp_min(SHORTEST) * second_length.clamp_min(SHORTEST)
    return (one * two).sum(-1) * torch.where(has_directions, product.reciprocal(), 0.0)


def unit_distance(one: Tensor, two: Tensor) -> Tensor:
    """Squared distance (...) of vectors (..., D) at unit length, two minus twice the cosine."""
    return (l2_normalize(one) - l2_normalize(two)).square().sum(-1)


def pairwise_dot(one: Tensor, two: Tensor) -> Tensor:
    """Inner products of all rows of two tensors, in float32 or better under autocast too.

    Args:
        one: (..., M, D).
        two: (..., K, D).

    Returns:
        (..., M, K).
    """
    for rows in (one, two):
        require_dims(rows, 2, "embeddings")
    with torch.autocast(one.device.type, enabled=False):
        return to_float32(one) @ to_float32(two).mT


def angle_cosines(samples: Tensor) -> Tensor:
    """Cosines of the angles between triples of rows (N, D).

    Returns:
        (N, N, N). Entry [i, j, k] is the cosine of the angle at row i between rows j and k, and 0
        where two of the rows are equal.
    """
    directions = l2_normalize(samples[None] - samples[:, None])
    return pairwise_dot(directions, directions)
