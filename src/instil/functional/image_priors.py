"""What makes an image look like one: neighbouring pixels alike, and no large values."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import to_float32


def pixel_differences(image: Tensor) -> list[Tensor]:
    """Of images (N, C, H, W) each pixel less its neighbour to the right, below, and on both diagonals."""
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
    """How far neighbouring pixels are apart, summed over the four directions: images (N, C, H, W) give (N,).

    ``order``: 2 takes the Euclidean norm of the differences, 1 the mean of their sizes. ``per``: batch takes one norm of all images together, a
    scalar, as the code of Yin et al. 2020 does with order 2.
    """
    start = 0 if per == "batch" else 1
    apart = [part.flatten(start) for part in pixel_differences(image)]
    return torch.stack(
        [
            part.abs().mean(-1) if order == 1 else torch.linalg.vector_norm(part, dim=-1)
            for part in apart
        ]
    ).sum(0)


def image_norm(image: Tensor) -> Tensor:
    """The Euclidean norm of each image (N, ...): (N,)."""
    norms: Tensor = torch.linalg.vector_norm(to_float32(image).flatten(1), dim=1)
    return norms
