"""Gram matrices of feature maps."""

from __future__ import annotations

from torch import Tensor

from instil.core import to_float32
from instil.functional.feature_maps import require_dims


def gram(first: Tensor, second: Tensor, dims: int = 2) -> Tensor:
    """Products of the channels of two maps, averaged over the positions.

    Args:
        first: (..., C, *grid).
        second: (..., D, *grid).
        dims: number of dimensions of the grid.

    Returns:
        (..., C, D).
    """
    for features in (first, second):
        require_dims(features, dims + 1, "features")
    num_positions = first.shape[-dims:].numel()
    first_rows, second_rows = to_float32(first).flatten(-dims), to_float32(second).flatten(-dims)
    return first_rows @ second_rows.mT / num_positions
