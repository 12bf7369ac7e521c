"""Pooling over positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

CELL_POOLS: dict[str, dict[int, Callable[..., Tensor]]] = {
    "average": {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d},
    "max": {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d},
}
"""Pooling of cells of equal size, by the number of dimensions of the grid."""


def global_average_pool(stage: Tensor) -> Tensor:
    """Mean over positions.

    Args:
        stage: feature map (N, C, *grid) with a grid of two or more dimensions, tokens (N, L, C) or
            vectors (N, C).

    Returns:
        (N, C).
    """
    if stage.ndim >= 4:
        return mean_positions(stage)
    return stage.mean(1) if stage.ndim == 3 else stage


def mean_positions(features: Tensor, keepdim: bool = False) -> Tensor:
    """Mean over the positions of a map (N, C, *grid): (N, C), or (N, C, 1, ...)."""
    return features.mean(tuple(range(2, features.ndim)), keepdim=keepdim)


def expand_positions(values: Tensor, features: Tensor) -> Tensor:
    """Values (N, C) as (N, C, 1, ...), which broadcasts to a map (N, C, *grid)."""
    return values.view(*values.shape, *[1] * (features.ndim - 2))


def pool_cells(
    features: Tensor, cell: int | Sequence[int], kind: str = "average", ceil_mode: bool = True
) -> Tensor:
    """Pool the cells of a map (N, C, *grid).

    Args:
        features: (N, C, *grid).
        cell: size of a cell in each dimension, cut to the size of the grid.
        kind: ``"average"`` or ``"max"``.
        ceil_mode: keep the smaller cells at the end of a dimension.
    """
    grid = features.shape[2:]
    sizes = [cell] * len(grid) if isinstance(cell, int) else cell
    kernel = tuple(min(pair) for pair in zip(sizes, grid, strict=True))
    return CELL_POOLS[kind][len(grid)](features, kernel, ceil_mode=ceil_mode)
