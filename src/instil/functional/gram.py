"""How the channels of feature maps go together, whatever their positions are."""

from __future__ import annotations

from torch import Tensor

from instil.core import to_float32


def gram(first: Tensor, second: Tensor) -> Tensor:
    """Products of the channels of two maps (..., C, H, W) and (..., D, H, W), mean over the positions: (..., C, D)."""
    return (
        to_float32(first).flatten(-2)
        @ to_float32(second).flatten(-2).mT
        / (first.shape[-2] * first.shape[-1])
    )
