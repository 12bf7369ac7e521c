"""Source ``solids``: point sets and depth images of six synthetic solids."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import NonNegative
from instil.data.point_augmentation import rotations
from instil.data.samples import TensorData
from instil.data.splits import Splits

CLASSES = ("double_cone", "sphere", "cylinder", "double_pyramid", "cushion", "box")
"""Solids. The first three have round horizontal sections, the others square ones."""
SIZES = (600, 120, 480)
"""Numbers of train, validation and test samples."""
NUM_VIEWS = 4
IMAGE_SIZE = 16
EXTENT = 3.0
"""Side of an image, in units of the coordinates."""


def solids(
    points: Annotated[int, Ge(8), Doc("number of points of a sample")] = 256,
    noise: Annotated[
        NonNegative, Doc("standard deviation of the noise of a coordinate; a solid has radius 1")
    ] = 0.05,
    task_name: str = "",
) -> Splits:
    """Noisy points on the surfaces of six solids of random proportions, turned about the z axis.

    Samples have ``points`` (P, 3), in random order, and ``views`` (4, 1, 16, 16): depth images of
    these points from four directions, 90 degrees apart, in which 0 is empty. ``image`` is the first
    view, and ``pixels`` (P, 2) is the place of each point in it, right and down, in [-1, 1].

    Args:
        task_name: task of the recipe, which decides which of the two a network reads by default.

    Returns:
        Train, validation and test data: 600, 120 and 480 samples.
    """
    train, validation, test = (
        _part(size, seed, points, noise, task_name) for seed, size in enumerate(SIZES)
    )
    return Splits(train, validation, test, CLASSES, "single")


def _part(size: int, seed: int, num_points: int, noise: float, task_name: str) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % len(CLASSES)
    xyz = surface_points(label, num_points, generator)
    xyz = xyz * (0.6 + 0.4 * torch.rand(size, 1, 3, generator=generator))
    turn = rotations(2 * math.pi * torch.rand(size, generator=generator), 2)
    xyz = xyz @ turn.mT + noise * torch.randn(xyz.shape, generator=generator)
    views = depth_views(xyz)
    right, _, up = xyz.unbind(2)
    pixels = torch.stack([right, -up], 2) * (2 / EXTENT)
    inputs = {"points": xyz, "views": views, "image": views[:, 0], "pixels": pixels}
    facts: dict[str, int] = {"channels": 3}
    if task_name == "multi_view_classification":
        inputs = {"views": views} | inputs
        facts = {"channels": 1, "size": IMAGE_SIZE}
    return TensorData(inputs, label, CLASSES, facts)


def surface_points(label: Tensor, num_points: int, generator: torch.Generator) -> Tensor:
    """Points on the surfaces of solids, which are the unit balls of six norms.

    The norm of (x, y) is Euclidean or the larger coordinate; it is combined with z by the sum, the
    root of the squares or the maximum.

    Args:
        label: (N,), indices of ``CLASSES``.
        num_points: number P of points.
        generator: source of the directions.

    Returns:
        (N, P, 3).
    """
    direction = torch.randn(len(label), num_points, 3, generator=generator)
    is_round = (label < 3)[:, None]
    plane = torch.where(is_round, direction[..., :2].norm(dim=2), direction[..., :2].abs().amax(2))
    height = direction[..., 2].abs()
    norms = torch.stack([plane + height, torch.hypot(plane, height), plane.maximum(height)])
    norm = norms.gather(0, (label % 3)[None, :, None].expand(1, -1, num_points))[0]
    return direction / norm[..., None]


def depth_views(xyz: Tensor) -> Tensor:
    """Orthographic depth images of points, from directions around the z axis.

    Args:
        xyz: (N, P, 3) with coordinates of at most about 1.5; points beyond are at the border.

    Returns:
        (N, V, 1, S, S) in [0, 1]; a near point has a larger value, 0 is empty.
    """
    views = []
    for view in range(NUM_VIEWS):
        angle = xyz.new_full((len(xyz),), 2 * math.pi * view / NUM_VIEWS)
        right, near, up = (xyz @ rotations(angle, 2).mT).unbind(2)
        column, row = (
            ((value / EXTENT + 0.5) * IMAGE_SIZE).long().clamp(0, IMAGE_SIZE - 1)
            for value in (right, -up)
        )
        depth = (near / EXTENT + 0.5).clamp(0.05, 1)
        image = xyz.new_zeros(len(xyz), IMAGE_SIZE**2)
        image.scatter_reduce_(1, row * IMAGE_SIZE + column, depth, "amax")
        views.append(image.view(-1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return torch.stack(views, 1)
