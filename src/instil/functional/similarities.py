"""Similarity and distance matrices of the samples of a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.directions import pairwise_dot

NEAREST = 1e-6
"""A mean distance below this is not divided by."""


def scaled_similarities(image: Tensor, text: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """``scale`` times the inner products of all images (N, D) with all texts (M, D): (N, M)."""
    return scale * pairwise_dot(image, text)


def inner_products(samples: Tensor) -> Tensor:
    """[i, j]: the inner product of samples i and j (N, ...)."""
    flat = samples.flatten(1)
    return pairwise_dot(flat, flat)


def pairwise_distances(samples: Tensor) -> Tensor:
    """[i, j]: the Euclidean distance of samples i and j (N, ...), which coincide where ``pairwise_squared_distances`` says so."""
    found: Tensor = _Distances.apply(_near_the_origin(samples))
    return found


def pairwise_squared_distances(samples: Tensor) -> Tensor:
    """[i, j]: the squared Euclidean distance of samples i and j (N, ...), from one matrix product of the samples less their mean.

    Exactly 0, without a gradient, on the diagonal and where it is less than the rounding errors of that product, which are proportional to the
    squared lengths: below some 0.3 % of their distance from the mean (float32, width 512) two samples coincide.
    """
    squared, same = _apart(_near_the_origin(samples))
    return squared.masked_fill_(same, 0.0)


class _Distances(torch.autograd.Function):
    """Distances of vectors (N, D), with a gradient that is made of them."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        squared, same = _apart(vectors)
        apart = squared.masked_fill_(same, 0.0).sqrt_()
        ctx.save_for_backward(vectors, apart)
        return apart

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        vectors, apart = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            squared, same = _apart(vectors)
            apart = squared.masked_fill_(same, 1.0).sqrt()
        pull = (gradient / apart).masked_fill(apart.detach() == 0, 0.0)
        found: Tensor = (
            (pull.sum(1) + pull.sum(0))[:, None] * vectors - pull @ vectors - pull.mT @ vectors
        )
        return found


def _near_the_origin(samples: Tensor) -> Tensor:
    """Vectors (N, D) in full precision, less their mean: no distance changes, and the numbers are smaller."""
    flat = to_float32(samples).flatten(1)
    return flat - flat.detach().mean(0)


def _apart(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of vectors (N, D) with rounding errors, and where they are nothing else."""
    length = vectors.square().sum(1, keepdim=True)
    one = torch.ones_like(length)
    with torch.autocast(vectors.device.type, enabled=False):
        squared = (
            torch.cat([-2 * vectors, length, one], 1) @ torch.cat([vectors, one, length], 1).mT
        )
    rounding = 2 * torch.finfo(vectors.dtype).eps * (8 + math.sqrt(vectors.shape[1]))
    return squared, (squared.detach() <= rounding * length.detach()).fill_diagonal_(True)


def centred(matrix: Tensor) -> Tensor:
    """A matrix (N, N) with mean 0 in every row and column."""
    return matrix - matrix.mean(0, keepdim=True) - matrix.mean(1, keepdim=True) + matrix.mean()
