"""Source ``stick_arms``: arms of two segments, with the positions of their joints."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.keypoint_images import KeypointImages
from instil.data.splits import Splits

JOINTS = ("shoulder", "elbow", "hand")
SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test images."""
NOISE = 0.1
"""Standard deviation of the noise of a pixel."""
BRIGHTNESS = (1.0, 0.6)
"""Brightness of the upper and of the lower arm."""


def stick_arms(
    poses: Annotated[
        int, Ge(3), Doc("number of training images; the other splits have a third each")
    ] = 400,
    size: Annotated[int, Ge(8), Doc("height and width of an image, in pixels")] = 16,
) -> Splits:
    """Arms of two segments in random poses, for pose estimation.

    The upper arm is brighter than the lower one. Samples have ``image`` (N, 1, H, W), ``label``
    (N, 3, 2), the column and row of shoulder, elbow and hand, ``valid`` and ``image_size``.

    Args:
        poses: number of training images; validation and test have a third of it each.
        size: height and width of an image, in pixels.

    Returns:
        Train, validation and test data.
    """
    counts = (poses, poses // 3, poses // 3)
    train, validation, test = (
        _arms(count, seed, size) for count, seed in zip(counts, SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _arms(count: int, seed: int, size: int) -> KeypointImages:
    # The order of the draws decides the data: shoulders, angles, noise.
    generator = torch.Generator().manual_seed(seed)
    shoulder = size * (0.4 + 0.2 * torch.rand(count, 2, generator=generator))
    angles = 2 * math.pi * torch.rand(count, 2, generator=generator)
    steps = torch.stack([angles.cos(), angles.sin()], -1) * size / 5
    joints = torch.stack([shoulder, shoulder + steps[:, 0], shoulder + steps.sum(1)], 1)
    image = torch.zeros(count, size, size)
    for index, brightness in enumerate(BRIGHTNESS):
        is_arm = _distance(joints[:, index], joints[:, index + 1], size) < size / 16
        image = torch.where(is_arm, brightness, image)
    image = (image + NOISE * torch.randn(count, size, size, generator=generator)).clamp(0, 1)
    labels = torch.zeros(count, dtype=torch.int64)
    return KeypointImages(ArrayData(image[:, None], labels, ("arm",)), joints, JOINTS)


def _distance(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Distance (N, H, W) of the centre of every pixel to a segment between points (N, 2)."""
    axis = torch.arange(size) + 0.5
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([columns, rows], -1)
    start, end = start[:, None, None], end[:, None, None]
    line = end - start
    share = ((pixels - start) * line).sum(-1) / line.square().sum(-1)
    nearest = start + share.clamp(0, 1)[..., None] * line
    distance: Tensor = (pixels - nearest).norm(dim=-1)
    return distance
