"""Handwritten digits, turned and moved, with how far: a real label of three numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from instil.data.images import ArrayData
from instil.data.samples import RealData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)  # of train, validation and test
OUTPUTS = ("angle", "right", "down")


def digit_poses(size: int = 12, angle: float = 60.0) -> Splits:
    """The digits on a black ground of ``size`` x ``size`` pixels, each turned by up to ``angle`` degrees either way and moved, but never out.

    ``image`` (N, 1, H, W); ``label`` (N, 3): the angle anticlockwise, and the way right and down, each as a share of the farthest there can
    be, in [-1, 1].

    Raises ValueError for a size below 10, and an angle that is not above 0 and at most 180.
    """
    if size < 10 or not 0 < angle <= 180:
        raise ValueError(
            f"a size of at least 10 and an angle above 0 and at most 180 are needed, not {size} and {angle:g}"
        )
    train, validation, test = (
        _posed(part, seed, size, angle) for part, seed in zip(digit_parts(), SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _posed(source: ArrayData, seed: int, size: int, angle: float) -> RealData:
    pose = (
        2 * torch.rand(len(source), len(OUTPUTS), generator=torch.Generator().manual_seed(seed)) - 1
    )
    turn, way = (
        pose[:, 0] * math.radians(angle),
        pose[:, 1:] * (size - 8) / 8,
    )  # a digit's own image reaches from -1 to 1
    matrix = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    place = torch.arange(size).add(0.5).sub(size / 2) / 4
    where = torch.stack(
        torch.meshgrid(place, place, indexing="xy"), -1
    )  # in the digit's units, from the middle
    grid = (where[None] - way[:, None, None]) @ matrix.mT[:, None]
    image = F.grid_sample(source.image, grid, align_corners=False).clamp(0, 1)
    return RealData({"image": image}, pose, OUTPUTS, {"channels": 1, "size": size})
