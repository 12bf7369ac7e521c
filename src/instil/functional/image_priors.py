"""Priors of natural images: similar neighbouring pixels and a small norm."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import to_float32


def pixel_differences(image: Tensor) -> list[Tensor]:
    """Differences of neighbouring pixels: horizontal, vertical and on both diagonals.

    Args:
        image: (N, C, H, W).

    Returns:
        Four tensors (N, C, H or H - 1, W or W - 1).
    """
    image = to_float32(image)
    return [
        image[..., :, :-1] - image[..., :, 1:],
        image[..., :-1, :] - image[..., 1:, :],
        image[..., 1:, :-1] - image[..., :-1, 1:],
        image[..., :-1, :-1] - image[..., 1:, 1:],
    ]


def total_variation(
    image: Tensor, order: Literal[1, 2] = 2, per: Literal["image", "batch"] = "image"
) -> Tensor:
    """Differences of neighbouring pixels, summed over the four directions.

    Args:
        image: (N, C, H, W).
        order: 2: Euclidean norm of the differences; 1: their mean magnitude.
        per: ``"batch"`` takes one norm of all images, as the code of Yin et al. 2020 does with
            order 2.

    Returns:
        (N,), or a scalar for ``per="batch"``.

    Example:
        >>> total_variation(torch.eye(2).view(1, 1, 2, 2), order=1)
        tensor([2.])
    """
    start = 0 if per == "batch" else 1
    values = []
    for difference in pixel_differences(image):
        flat = difference.flatten(start)
        if order == 1:
            values.append(flat.abs().mean(-1))
        else:
            values.append(torch.linalg.vector_norm(flat, dim=-1))
    return torch.stack(values).sum(0)


def image_norm(image: Tensor) -> Tensor:
    """Euclidean norm of each image: (N, ...) gives (N,)."""
    norms: Tensor = torch.linalg.vector_norm(to_float32(image).flatten(1), dim=1)
    return norms
