"""Feature maps: layout, spatial size and shape checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32

POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}
"""Average pooling to a grid, by the number of dimensions of the grid."""

INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Mode of ``interpolate``, by the number of dimensions of the grid."""


def as_map(features: Tensor) -> Tensor:
    """Convert features to a map (N, C, *grid) with a grid of two or three dimensions.

    Args:
        features: map (N, C, H, W) or (N, C, T, H, W), returned as it is; vectors (N, D), which
            become one position; or tokens (N, L, D), which become a square grid. Tokens beyond the
            largest square are class or register tokens. They lead the sequence and are dropped
            (197 = 1 + 14 x 14).

    Raises:
        ValueError: for another number of dimensions.
    """
    if features.ndim in (4, 5):
        return features
    if features.ndim == 2:
        return features[:, :, None, None]
    if features.ndim != 3:
        raise ValueError(
            f"features of shape {tuple(features.shape)}; expected a map (N, C, H, W) or "
            "(N, C, T, H, W), tokens (N, L, D) or a vector (N, D)"
        )
    side = math.isqrt(features.shape[1])
    patches = features[:, features.shape[1] - side**2 :]
    return patches.mT.reshape(features.shape[0], features.shape[2], side, side)


def grid_of(features: Tensor) -> tuple[int, ...]:
    """Sizes of the grid of a map (N, C, *grid)."""
    return tuple(features.shape[2:])


def describe_grid(grid: Sequence[int]) -> str:
    """Sizes of a grid for a log, such as ``4x8x8``."""
    return "x".join(map(str, grid))


def match_dimensions(features: Tensor, dims: int) -> Tensor:
    """Map with a grid of ``dims`` dimensions.

    Leading dimensions that are too many are averaged, such as the time of a video for an image.
    Missing leading dimensions have the size 1.

    Args:
        features: (N, C, *grid).
        dims: number of dimensions of the new grid.
    """
    surplus = features.ndim - 2 - dims
    if surplus > 0:
        return features.mean(tuple(range(2, 2 + surplus)))
    for _ in range(-surplus):
        features = features.unsqueeze(2)
    return features


def resize(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize a map (N, C, *grid) to another grid.

    Average pooling where no side grows, else linear interpolation in each dimension. The number of
    dimensions is matched first, see ``match_dimensions``.
    """
    grid = tuple(grid)
    features = match_dimensions(features, len(grid))
    current = grid_of(features)
    if current == grid:
        return features
    if all(size >= target for size, target in zip(current, grid, strict=True)):
        return POOLS[len(grid)](features, grid)
    return interpolate(features, grid)


def interpolate(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Linear interpolation of a map (N, C, *grid) in each dimension of its grid."""
    mode = INTERPOLATIONS[len(grid)]
    return F.interpolate(features, tuple(grid), mode=mode, align_corners=False)


def common_sizes(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """Smaller size of two grids in each dimension, counted from the last.

    Leading dimensions that only one grid has are left out.
    """
    sizes = list(zip(reversed(first), reversed(second), strict=False))
    return tuple(min(pair) for pair in reversed(sizes))


def smaller_grid(student: Tensor, teacher: Tensor, what: str) -> tuple[int, ...]:
    """Smaller size in each dimension of two maps, for losses that compare positions.

    Args:
        student: (N, C, *grid).
        teacher: (N, D, *grid).
        what: name of the loss, for the message.

    Raises:
        ValueError: if the grid has one position, where such a loss has nothing to compare.
    """
    grid = common_sizes(grid_of(student), grid_of(teacher))
    if math.prod(grid) == 1:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(
            f"{what} needs more than one position, not {shapes}; leave that stage out of `pairs`"
        )
    return grid


def require_same_shape(
    student: Tensor, teacher: Tensor, what: str, dims: int = 1
) -> tuple[Tensor, Tensor]:
    """Both tensors in float32 or better, if their shapes agree.

    Args:
        student: student tensor.
        teacher: teacher tensor.
        what: name of the loss, for the message.
        dims: smallest number of dimensions.

    Raises:
        ValueError: as ``check_same_shape``.
    """
    check_same_shape(student, teacher, what, dims)
    return to_float32(student), to_float32(teacher)


def check_same_shape(student: Tensor, teacher: Tensor, what: str, dims: int = 1) -> None:
    """Check that student and teacher have one shape.

    Args:
        student: student tensor.
        teacher: teacher tensor.
        what: name of the loss, for the message.
        dims: smallest number of dimensions.

    Raises:
        ValueError: if the shapes differ, which broadcasting would hide, or have fewer dimensions.
    """
    require_dims(student, dims, what)
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what}: the student's shape {tuple(student.shape)} is not the teacher's, "
            f"{tuple(teacher.shape)}"
        )


def require_dims(values: Tensor, dims: int, what: str) -> None:
    """Check the number of dimensions.

    Args:
        values: a tensor.
        dims: smallest number of dimensions.
        what: name of the tensor or the loss, for the message.

    Raises:
        ValueError: if there are fewer dimensions.
    """
    if values.ndim < dims:
        raise ValueError(
            f"{what}: Expected {dims} or more dimensions, got the shape {tuple(values.shape)}"
        )


def require_same_items(student: Tensor, teacher: Tensor, what: str, dims: int = 2) -> None:
    """Check that both sides have the same number of samples; other sizes may differ.

    Args:
        student: (N, ...).
        teacher: (N, ...).
        what: name of the loss, for the message.
        dims: smallest number of dimensions.

    Raises:
        ValueError: if the numbers differ, which broadcasting would hide, or there are fewer
            dimensions.
    """
    for values in (student, teacher):
        require_dims(values, dims, what)
    if len(student) != len(teacher):
        raise ValueError(
            f"{what}: the student has {len(student)} samples, the teacher {len(teacher)}. Expected "
            f"the same samples, got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def resize_to_common(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Student and teacher features as maps on the smaller grid of the two.

    Returns:
        (N, C, *grid) and (N, D, *grid), in float32 or better.
    """
    student, teacher = to_float32(as_map(student)), to_float32(as_map(teacher))
    grid = common_sizes(grid_of(student), grid_of(teacher))
    return resize(student, grid), resize(teacher, grid)


def flatten_spatial(features: Tensor) -> Tensor:
    """Vectors (N, P, C) of the P positions of a map (N, C, *grid)."""
    return features.flatten(2).mT


def downsample_labels(label: Tensor, grid: Sequence[int]) -> Tensor:
    """Labels at the positions of a coarser grid, each that of the nearest position.

    Args:
        label: (N, *grid).
        grid: sizes of the coarser grid, with the same number of dimensions.

    Returns:
        (N, P), one label for each of the P positions of the coarser grid.

    Raises:
        ValueError: if labels and grid differ in the number of dimensions.
    """
    if label.ndim - 1 != len(grid):
        raise ValueError(
            f"label: the labels do not lie on the grid of the features. Expected {len(grid)} "
            f"dimensions after the first, for a grid of {describe_grid(grid)}, got shape "
            f"{tuple(label.shape)}. Tap a layer whose grid has the dimensions of the labels."
        )
    if tuple(label.shape[1:]) == tuple(grid):
        return label.flatten(1)
    nearest = F.interpolate(label[:, None].float(), tuple(grid), mode="nearest")
    return nearest.to(label.dtype).flatten(1)


def patch_tokens(features: Tensor) -> Tensor:
    """Patch tokens (N, P, C) of a map or of tokens, without class and register tokens."""
    return as_map(features).flatten(2).mT
