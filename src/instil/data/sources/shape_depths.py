"""Source ``shape_depths``: discs at different distances, with the depth of every pixel."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.labelled_pixels import DepthImages
from instil.data.splits import Splits

SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test scenes."""
NEAR, FAR = 1.0, 4.0
"""Depths of the nearest disc and of the wall behind all discs."""
NOISE = 0.05
"""Standard deviation of the noise of a pixel."""


def shape_depths(
    scenes: Annotated[
        int, Ge(3), Doc("number of training scenes; the other splits have a third each")
    ] = 400,
    size: Annotated[int, Ge(8), Doc("height and width of a scene, in pixels")] = 16,
    most: Annotated[int, Ge(1), Doc("largest number of discs in a scene")] = 3,
) -> Splits:
    """Scenes of discs in front of a sloping wall, for depth estimation.

    All discs have the same true size, so that a near disc is large and bright, and nearer discs
    cover others. Samples have ``image`` (N, 1, H, W), ``label`` (the depth) and ``valid``
    (N, H, W). The lowest row has no depth, as a sensor may have none.

    Args:
        scenes: number of training scenes; validation and test have a third of it each.
        size: height and width of a scene, in pixels.
        most: largest number of discs in a scene.

    Returns:
        Train, validation and test data.
    """
    counts = (scenes, scenes // 3, scenes // 3)
    train, validation, test = (
        _scenes(count, seed, size, most) for count, seed in zip(counts, SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(count: int, seed: int, size: int, most: int) -> DepthImages:
    # The order of the draws decides the data: slopes, numbers, distances, centres, noise.
    generator = torch.Generator().manual_seed(seed)
    slope = torch.rand(count, generator=generator)
    numbers = torch.randint(1, most + 1, (count,), generator=generator)
    distances = NEAR + (FAR - NEAR) * 0.8 * torch.rand(count, most, generator=generator)
    centres = torch.rand(count, most, 2, generator=generator) * size
    axis = torch.arange(size) + 0.5
    depth = FAR - slope[:, None, None] * (axis / size)[:, None] + torch.zeros(count, size, size)
    for index in range(most):
        square = _squared_distance(axis, centres[:, index])
        distance = distances[:, index, None, None]
        is_inside = square < (size / 3 / distance) ** 2
        is_there = (index < numbers)[:, None, None]
        is_nearest = distance < depth
        depth = torch.where(is_inside & is_there & is_nearest, distance, depth)
    noise = NOISE * torch.randn(count, size, size, generator=generator)
    image = (NEAR / depth + noise).clamp(0, 1)
    depth[:, -1] = 0
    return DepthImages(ArrayData(image[:, None], torch.zeros(count).long(), ("depth",)), depth)


def _squared_distance(axis: Tensor, centre: Tensor) -> Tensor:
    """Squared distance (N, H, W) of every pixel to a centre (N, 2)."""
    row = (axis - centre[:, :1]).square()[:, :, None]
    column = (axis - centre[:, 1:]).square()[:, None, :]
    return row + column
