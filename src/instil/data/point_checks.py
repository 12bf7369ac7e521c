"""Checks of point sets before training."""

from __future__ import annotations

from torch import Tensor


def check_points(points: Tensor) -> None:
    """Check the shape, type and values of point sets.

    Args:
        points: (N, P, C): three coordinates, then other values of each point.

    Raises:
        ValueError: for another shape, no points, integers, and values that are not finite.
    """
    shape = tuple(points.shape)
    if points.ndim != 3 or points.shape[1] < 1 or points.shape[2] < 3:
        raise ValueError(
            f"points: wrong shape. Expected (N, P, C) with at least one point and the coordinates "
            f"x, y and z first, got {shape}. Transpose (N, C, P)"
        )
    if not points.is_floating_point():
        raise ValueError(f"points: wrong type. Expected floating-point numbers, got {points.dtype}")
    is_finite = points.isfinite().flatten(1).all(1)
    if not is_finite.all():
        row = int((~is_finite).nonzero()[0])
        raise ValueError(
            f"points: row {row} has NaN or infinite values. Expected finite numbers. Remove the "
            "row, or replace these points by others of the same set"
        )
