"""Indices of the parts that a smaller model keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def largest(scores: Tensor | None, count: int, total: int) -> Tensor:
    """Return the indices of the largest scores, in order.

    Args:
        scores: (total,); None: the first indices are returned.
        count: number of indices.
        total: number of scores.

    Example:
        >>> largest(torch.tensor([0.2, 0.9, 0.1, 0.5]), 2, 4)
        tensor([1, 3])
    """
    if scores is None or count == total:
        return torch.arange(count)
    # Sorted, so that the parts keep their order.
    return scores.topk(count).indices.sort().values


def expand(indices: Tensor, length: int) -> Tensor:
    """Return the indices of the features in blocks of ``length`` with these indices.

    Args:
        indices: indices of the blocks (N,).
        length: number of features of a block.

    Example:
        >>> expand(torch.tensor([0, 2]), 3)
        tensor([0, 1, 2, 6, 7, 8])
    """
    return (indices[:, None] * length + torch.arange(length, device=indices.device)).flatten()
