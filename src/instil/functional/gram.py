"""Gram matrices of feature maps."""

from __future__ import annotations

from torch import Tensor


def gram(first: Tensor, second: Tensor) -> Tensor:
    """Products of the channels of two maps, averaged over the positions.

    Args:
        first: (..., C, H, W).
        second: (..., D, H, W).

    Returns:
        (..., C, D).
    """
    num_positions = first.shape[-2] * first.shape[-1]
    return full(first).flatten(-2) @ full(second).flatten(-2).mT / num_positions
