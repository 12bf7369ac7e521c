"""Feature maps: layout, spatial size and shape checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def as_map(stage: Tensor) -> Tensor:
    """A stage as a map (N, C, H, W): maps as they are, vectors (N, D) as one position, tokens (N, L, D) as a square grid.

    Tokens beyond the largest square are taken to be class or register tokens: they lead the sequence and are dropped
    (197 = 1 + 14 x 14). Raises ValueError for any other number of dimensions.
    """
    if stage.ndim == 4:
        return stage
    if stage.ndim == 2:
        return stage[:, :, None, None]
    if stage.ndim != 3:
        raise ValueError(
            f"a stage of shape {tuple(stage.shape)}; expected a map (N, C, H, W), tokens (N, L, D) or a vector (N, D)"
        )
    side = math.isqrt(stage.shape[1])
    return stage[:, stage.shape[1] - side**2 :].mT.reshape(
        stage.shape[0], stage.shape[2], side, side
    )


def resize(stage: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map (N, C, H, W) on another grid: average-pooled where neither side grows, else bilinear."""
    height, width = stage.shape[-2:]
    if (height, width) == grid:
        return stage
    if height >= grid[0] and width >= grid[1]:
        return F.adaptive_avg_pool2d(stage, grid)
    return F.interpolate(stage, grid, mode="bilinear", align_corners=False)


def smaller_grid(student: Tensor, teacher: Tensor, what: str) -> tuple[int, int]:
    """The smaller height and width of two maps.

    Raises ValueError where that is one position, for what looks at positions, each relative to the others: nothing would be left to learn.
    """
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    if height * width == 1:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(
            f"{what} needs more than one position, not {shapes}; leave that stage out of `pairs`"
        )
    return height, width


def require_same_shape(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both in full precision; a ValueError where their shapes differ, which broadcasting would hide."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what}: the student's shape {tuple(student.shape)} is not the teacher's, {tuple(teacher.shape)}"
        )
    return to_float32(student), to_float32(teacher)


def resize_to_common(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both stages as maps in full precision on the smaller grid of the two: (N, C, H, W) and (N, D, H, W)."""
    student, teacher = to_float32(as_map(student)), to_float32(as_map(teacher))
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return resize(student, (height, width)), resize(teacher, (height, width))


def flatten_spatial(stage: Tensor) -> Tensor:
    """A map (N, C, H, W) as vectors (N, H * W, C)."""
    return stage.flatten(2).mT


def downsample_labels(label: Tensor, grid: Sequence[int]) -> Tensor:
    """Labels (N, H, W) at the positions of a coarser grid, each that of the nearest pixel: (N, h * w)."""
    if tuple(label.shape[1:]) == tuple(grid):
        return label.flatten(1)
    return (
        F.interpolate(label[:, None].float(), tuple(grid), mode="nearest")
        .to(label.dtype)
        .flatten(1)
    )


def patch_tokens(stage: Tensor) -> Tensor:
    """A stage, map or tokens, as patch tokens (N, H * W, C) without class and register tokens."""
    return as_map(stage).flatten(2).mT
