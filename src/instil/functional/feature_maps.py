"""Feature maps: layout, spatial size and shape checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def as_map(features: Tensor) -> Tensor:
    """Convert features to a map (N, C, H, W).

    Args:
        features: map (N, C, H, W); vectors (N, D), which become one position; or tokens (N, L, D),
            which become a square grid. Tokens beyond the largest square are class or register
            tokens. They lead the sequence and are dropped (197 = 1 + 14 x 14).

    Raises:
        ValueError: for another number of dimensions.
    """
    if features.ndim == 4:
        return features
    if features.ndim == 2:
        return features[:, :, None, None]
    if features.ndim != 3:
        raise ValueError(
            f"features of shape {tuple(features.shape)}; expected a map (N, C, H, W), tokens "
            "(N, L, D) or a vector (N, D)"
        )
    side = math.isqrt(features.shape[1])
    patches = features[:, features.shape[1] - side**2 :]
    return patches.mT.reshape(features.shape[0], features.shape[2], side, side)


def resize(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a map (N, C, H, W) to another grid.

    Average pooling where neither side grows, bilinear interpolation otherwise.
    """
    height, width = features.shape[-2:]
    if (height, width) == grid:
        return features
    if height >= grid[0] and width >= grid[1]:
        return F.adaptive_avg_pool2d(features, grid)
    return F.interpolate(features, grid, mode="bilinear", align_corners=False)


def smaller_grid(student: Tensor, teacher: Tensor, what: str) -> tuple[int, int]:
    """Smaller height and smaller width of two maps, for losses that compare positions.

    Args:
        student: (N, C, H, W).
        teacher: (N, D, H', W').
        what: name of the loss, for the message.

    Raises:
        ValueError: if the grid has one position, where such a loss has nothing to compare.
    """
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    if height * width == 1:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(
            f"{what} needs more than one position, not {shapes}; leave that stage out of `pairs`"
        )
    return height, width


def require_same_shape(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both tensors in float32 or better, if their shapes agree.

    Args:
        student: student tensor.
        teacher: teacher tensor.
        what: name of the loss, for the message.

    Raises:
        ValueError: if the shapes differ, which broadcasting would hide.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what}: the student's shape {tuple(student.shape)} is not the teacher's, "
            f"{tuple(teacher.shape)}"
        )
    return to_float32(student), to_float32(teacher)


def resize_to_common(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Student and teacher features as maps on the smaller grid of the two.

    Returns:
        (N, C, H, W) and (N, D, H, W), in float32 or better.
    """
    student, teacher = to_float32(as_map(student)), to_float32(as_map(teacher))
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return resize(student, (height, width)), resize(teacher, (height, width))


def flatten_spatial(features: Tensor) -> Tensor:
    """Vectors (N, H * W, C) of the positions of a map (N, C, H, W)."""
    return features.flatten(2).mT


def downsample_labels(label: Tensor, grid: Sequence[int]) -> Tensor:
    """Labels at the positions of a coarser grid, each that of the nearest pixel.

    Args:
        label: (N, H, W).
        grid: height and width (h, w).

    Returns:
        (N, h * w).
    """
    if tuple(label.shape[1:]) == tuple(grid):
        return label.flatten(1)
    nearest = F.interpolate(label[:, None].float(), tuple(grid), mode="nearest")
    return nearest.to(label.dtype).flatten(1)


def patch_tokens(features: Tensor) -> Tensor:
    """Patch tokens (N, H * W, C) of a map or of tokens, without class and register tokens."""
    return as_map(features).flatten(2).mT
