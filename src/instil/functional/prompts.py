"""Prompts of segmentation: boxes and points of masks."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = -10
"""Label of a point that a model ignores."""


def sample_points(mask: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one pixel of each mask.

    Args:
        mask: pixels to draw from (N, H, W), boolean.
        uniform: number in [0, 1) of each mask (N,).

    Returns:
        Column and row of the pixel (N, 2), and whether the mask has a pixel (N,).

    Example:
        >>> mask = torch.tensor([[[False, True], [False, True]]])
        >>> sample_points(mask, torch.tensor([0.7]))
        (tensor([[1, 1]]), tensor([True]))
    """
    pixels = mask.flatten(1)
    count = pixels.sum(1)
    # Rounding of the product may reach the number of pixels itself.
    rank = (uniform.to(torch.float64) * count).long().minimum(count - 1).clamp_min(0)
    position = (pixels.cumsum(1) <= rank[:, None]).sum(1).clamp_max(pixels.shape[1] - 1)
    width = mask.shape[2]
    return torch.stack([position % width, position // width], 1), count > 0


def box_of(mask: Tensor) -> Tensor:
    """Smallest box around each mask.

    Args:
        mask: (N, H, W), boolean, each with at least one pixel.

    Returns:
        Left, top, right and bottom pixel (N, 4), int64.

    Example:
        >>> box_of(torch.tensor([[[False, True], [False, True]]]))
        tensor([[1, 0, 1, 1]])
    """
    columns, rows = mask.any(1).long(), mask.any(2).long()
    left, top = columns.argmax(1), rows.argmax(1)
    right = columns.shape[1] - 1 - columns.flip(1).argmax(1)
    bottom = rows.shape[1] - 1 - rows.flip(1).argmax(1)
    return torch.stack([left, top, right, bottom], 1)
