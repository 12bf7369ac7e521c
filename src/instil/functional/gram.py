"""Gram matrices of feature maps."""

from __future__ import annotations

from torch import Tensor

from instil.core import to_float32


def gram(first: Tensor, second: Tensor) -> Tensor:
    """Products of the channels of two maps, averaged over the positions.

    Args:
        first: (..., C, H, W).
        second: (..., D, H, W).

    Returns:
        (..., C, D).
    """
    num_positions = first.shape[-2] * first.shape[-1]
    return to_float32(first).flatten(-2) @ to_float32(second).flatten(-2).mT / num_positions
