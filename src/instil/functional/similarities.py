"""Similarity and distance matrices of the samples of a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_dims
from instil.items.tensor_values import inside_transform

NEAREST = 1e-6
"""Smallest mean distance by which distances are divided."""


def inner_products(samples: Tensor) -> Tensor:
    """Inner products (N, N) of samples (N, ...)."""
    flat = samples.flatten(1)
    return pairwise_dot(flat, flat)


def scaled_similarities(image: Tensor, text: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Scaled inner products of all images with all texts.

    Args:
        image: image embeddings (N, D).
        text: text embeddings (M, D).
        scale: factor of the products.

    Returns:
        (N, M).
    """
    return scale * pairwise_dot(image, text)


def pairwise_distances(samples: Tensor) -> Tensor:
    """Euclidean distances (N, N) of samples (N, ...).

    They are exactly 0 where ``pairwise_squared_distances`` is.
    """
    vectors = _subtract_mean(samples)
    if inside_transform():
        return _differentiable_distances(vectors)
    distances: Tensor = _Distances.apply(vectors)
    return distances


def pairwise_squared_distances(samples: Tensor) -> Tensor:
    """Squared Euclidean distances (N, N) of samples (N, ...), from one matrix product.

    They are exactly 0, without a gradient, on the diagonal and where they are smaller than the
    rounding errors of that product. These are proportional to the squared lengths: two samples
    coincide below about 0.3 % of their distance from the mean (float32, width 512).
    """
    squared, is_rounding = _squared_distances(_subtract_mean(samples))
    return squared.masked_fill_(is_rounding, 0.0)


class _Distances(torch.autograd.Function):
    """Distances of vectors (N, D), with a gradient computed from the distances."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        squared, is_rounding = _squared_distances(vectors)
        distances = squared.masked_fill_(is_rounding, 0.0).sqrt_()
        ctx.save_for_backward(vectors, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        vectors, distances = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A second derivative needs the distances as a function of the vectors.
            squared, is_rounding = _squared_distances(vectors)
            distances = squared.masked_fill_(is_rounding, 1.0).sqrt()
        pull = (grad_output / distances).masked_fill(distances.detach() == 0, 0.0)
        row_and_column = (pull.sum(1) + pull.sum(0))[:, None]
        grad: Tensor = row_and_column * vectors - pull @ vectors - pull.mT @ vectors
        return grad


def _differentiable_distances(vectors: Tensor) -> Tensor:
    """Distances (N, N), without a gradient where they are 0."""
    squared, is_rounding = _squared_distances(vectors)
    return squared.masked_fill(is_rounding, 1.0).sqrt().masked_fill(is_rounding, 0.0)


def _subtract_mean(samples: Tensor) -> Tensor:
    """Vectors (N, D) minus their mean, which keeps distances and makes rounding errors smaller."""
    require_dims(samples, 2, "samples")
    flat = to_float32(samples).flatten(1)
    return flat - flat.detach().mean(0)


def _squared_distances(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances with rounding errors, and mask of those that are rounding errors only."""
    length = vectors.square().sum(1, keepdim=True)
    one = torch.ones_like(length)
    with torch.autocast(vectors.device.type, enabled=False):
        left = torch.cat([-2 * vectors, length, one], 1)
        squared = left @ torch.cat([vectors, one, length], 1).mT
    rounding = 2 * torch.finfo(vectors.dtype).eps * (8 + math.sqrt(vectors.shape[1]))
    is_rounding = squared.detach() <= rounding * length.detach()
    return squared, is_rounding.fill_diagonal_(True)


def centred(matrix: Tensor) -> Tensor:
    """Matrix (N, N) with the means of its rows and columns removed."""
    return matrix - matrix.mean(0, keepdim=True) - matrix.mean(1, keepdim=True) + matrix.mean()
