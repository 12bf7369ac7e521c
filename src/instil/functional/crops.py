"""Random crops of images, which depend on seed, step and sample only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


def random_crops(
    batch: Batch,
    num_crops: int,
    scale: tuple[float, float],
    jitter: float = 0.0,
    flip: bool = False,
    *,
    stream: str,
) -> Tensor:
    """Random crops of each image, resized to the size of the image (bilinear).

    The ratio of width to height is between 3 : 4 and 4 : 3.

    Args:
        batch: a batch with ``image`` (N, C, H, W).
        num_crops: number of crops per image.
        scale: smallest and largest share of the image's area.
        jitter: largest relative change of the contrast and of the brightness.
        flip: whether to mirror half of the crops.
        stream: name of the random stream.

    Returns:
        Crops (N, num_crops, C, H, W).
    """
    image: Tensor = batch["image"]
    area, ratio, right, down, contrast, brightness, mirror = (
        keyed_uniform(batch, 7 * num_crops, stream).view(-1, num_crops, 7).unbind(-1)
    )
    side = (scale[0] + (scale[1] - scale[0]) * area).sqrt()
    stretch = (4 / 3) ** (ratio - 0.5)
    width = (side * stretch).clamp_max(1)
    height = (side / stretch).clamp_max(1)
    sign = torch.where((mirror < 0.5) & flip, -1.0, 1.0)
    zero = torch.zeros_like(width)
    rows = [
        torch.stack([sign * width, zero, (2 * right - 1) * (1 - width)], -1),
        torch.stack([zero, height, (2 * down - 1) * (1 - height)], -1),
    ]
    theta = torch.stack(rows, -2).flatten(0, 1).to(image.dtype)
    repeated = image.repeat_interleave(num_crops, 0)
    grid = F.affine_grid(theta, list(repeated.shape), align_corners=False)
    cropped = F.grid_sample(repeated, grid, padding_mode="border", align_corners=False)
    cropped = cropped.view(-1, num_crops, *image.shape[1:])
    if not jitter:
        return cropped
    return _change_colours(cropped, jitter * (2 * contrast - 1), jitter * (2 * brightness - 1))


def _change_colours(crops: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Crops (N, n, C, H, W) with the relative changes (N, n) of contrast and brightness."""
    contrast = contrast.view(*contrast.shape, 1, 1, 1).to(crops.dtype)
    brightness = brightness.view(*brightness.shape, 1, 1, 1).to(crops.dtype)
    mean = crops.mean((2, 3, 4), keepdim=True)
    return (mean + (crops - mean) * (1 + contrast) + brightness / 2).clamp(0, 1)
