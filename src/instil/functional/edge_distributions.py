"""Distributions over the positions of the edges of a box."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits


def edge_divergence(
    student_logits: Tensor, teacher_logits: Tensor, edges: int = 4, temperature: float = 1.0
) -> Tensor:
    """KL divergence of the distributions of each edge, summed over the edges.

    Args:
        student_logits: (..., edges * bins); the bins of one edge are adjacent.
        teacher_logits: (..., edges * bins).
        edges: number of edge distributions per item, >= 1.
        temperature: softmax temperature, > 0.

    Returns:
        ``temperature ** 2`` times the divergence (...).

    Raises:
        ValueError: if the shapes differ, or the last dimension is not ``edges`` times an equal
            number of bins, at least two.
    """
    require_same_logits(student_logits, teacher_logits)
    size = student_logits.shape[-1]
    if size % edges or size < 2 * edges:
        raise ValueError(
            f"student_logits: {size} logits cannot be split into {edges} edges. Expected shape "
            f"(..., edges * bins) with 2 bins or more, got {tuple(student_logits.shape)}."
        )
    # The bins of one edge become the last dimension, over which the softmax is taken.
    shape = (*student_logits.shape[:-1], edges, size // edges)
    values = softened_kl(student_logits.reshape(shape), teacher_logits.reshape(shape), temperature)
    return values.sum(-1) * temperature**2


def expected_boxes(box_logits: Tensor) -> Tensor:
    """Return boxes (..., 4) in bins: the mean of each edge's distribution over the bins.

    Args:
        box_logits: (..., 4 * bins).
    """
    bins = box_logits.shape[-1] // 4
    edges = to_float32(box_logits).reshape(*box_logits.shape[:-1], 4, bins)
    probability = edges.softmax(-1)
    positions = torch.arange(bins, device=probability.device, dtype=probability.dtype)
    return (probability * positions).sum(-1)
