"""Source ``digit_poses``: rotated and shifted handwritten digits, with real-valued pose labels."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.samples import RealData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test poses."""
OUTPUTS = ("angle", "right", "down")


def digit_poses(
    size: Annotated[int, Doc("height and width of an image, in pixels; >= 10")] = 12,
    angle: Annotated[
        float, Doc("largest rotation in either direction, in degrees; > 0 and <= 180")
    ] = 60.0,
) -> Splits:
    """Digits on a black background, randomly rotated and shifted, for regression.

    A digit never leaves the image. Samples have ``image`` (N, 1, H, W) and ``label`` (N, 3): the
    anticlockwise angle and the shifts to the right and down, each divided by its largest value,
    in [-1, 1].

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a size below 10, and an angle that is not in (0, 180].
    """
    if size < 10:
        raise ValueError(f"size: {size} is too small. Expected at least 10")
    if not 0 < angle <= 180:
        raise ValueError(f"angle: {angle:g} is out of range. Expected more than 0, at most 180")
    train, validation, test = (
        _posed(part, seed, size, angle) for part, seed in zip(digit_parts(), SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _posed(source: ArrayData, seed: int, size: int, angle: float) -> RealData:
    generator = torch.Generator().manual_seed(seed)
    pose = 2 * torch.rand(len(source), len(OUTPUTS), generator=generator) - 1
    turn = pose[:, 0] * math.radians(angle)
    # Coordinates are in units of the digit, whose own 8 x 8 image spans [-1, 1].
    shift = pose[:, 1:] * (size - 8) / 8
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    axis = torch.arange(size).add(0.5).sub(size / 2) / 4
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    grid = (pixels[None] - shift[:, None, None]) @ rotation.mT[:, None]
    image = F.grid_sample(source.image, grid, align_corners=False).clamp(0, 1)
    return RealData({"image": image}, pose, OUTPUTS, {"channels": 1, "size": size})
