"""Parts of images, drawn anew for each sample and step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, keyed_uniform


def random_crops(
    batch: Batch,
    number: int,
    scale: tuple[float, float],
    jitter: float = 0.0,
    flip: bool = False,
    *,
    stream: str,
) -> Tensor:
    """(N, number, C, H, W): parts of ``image`` (N, C, H, W) with a share of its area in ``scale``, enlarged to its size (bilinear).

    Width to height is between 3 : 4 and 4 : 3. ``jitter``: contrast and brightness change by up to so much; ``flip`` mirrors half of the parts.
    What is drawn depends on seed, step and sample alone.
    """
    image: Tensor = batch["image"]
    area, ratio, right, down, contrast, brightness, mirror = (
        keyed_uniform(batch, 7 * number, stream).view(-1, number, 7).unbind(-1)
    )
    share = (scale[0] + (scale[1] - scale[0]) * area).sqrt()
    stretch = (4 / 3) ** (ratio - 0.5)
    width, height = (share * stretch).clamp_max(1), (share / stretch).clamp_max(1)
    mirrored = torch.where((mirror < 0.5) & flip, -1.0, 1.0)
    nothing = torch.zeros_like(width)
    rows = [
        torch.stack([mirrored * width, nothing, (2 * right - 1) * (1 - width)], -1),
        torch.stack([nothing, height, (2 * down - 1) * (1 - height)], -1),
    ]
    theta = torch.stack(rows, -2).flatten(0, 1).to(image.dtype)
    repeated = image.repeat_interleave(number, 0)
    grid = F.affine_grid(theta, list(repeated.shape), align_corners=False)
    cropped = F.grid_sample(repeated, grid, padding_mode="border", align_corners=False).view(
        -1, number, *image.shape[1:]
    )
    contrast, brightness = (
        (jitter * (2 * one - 1)).view(*one.shape, 1, 1, 1).to(image.dtype)
        for one in (contrast, brightness)
    )
    mean = cropped.mean((2, 3, 4), keepdim=True)
    changed: Tensor = (mean + (cropped - mean) * (1 + contrast) + brightness / 2).clamp(0, 1)
    return changed if jitter else cropped
