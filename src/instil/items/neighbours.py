"""Nearest neighbours in point sets, and values at them."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_DISTANCE = 1e-5
"""Smallest distance in the weights of an interpolation. A point at this distance or less has
practically all the weight."""


def nearest_neighbours(
    query: Tensor, positions: Tensor, num_neighbours: int
) -> tuple[Tensor, Tensor]:
    """Find the nearest points of a set for each query point.

    Args:
        query: (N, Q, D).
        positions: (N, P, D).
        num_neighbours: number k of neighbours. A query point that is itself in the set is its own
            first neighbour.

    Returns:
        Indices (N, Q, k), int64, nearest first, and distances (N, Q, k) without a gradient.

    Raises:
        ValueError: if the set has fewer than k points, or the shapes do not fit.

    Example:
        >>> points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
        >>> nearest_neighbours(points, points, 2)[0]
        tensor([[[0, 1],
                 [1, 0],
                 [2, 1]]])
    """
    shapes = f"{tuple(query.shape)} and {tuple(positions.shape)}"
    if query.ndim != 3 or positions.ndim != 3 or query.shape[::2] != positions.shape[::2]:
        raise ValueError(
            f"positions: the point sets do not fit. Expected (N, Q, D) and (N, P, D), got {shapes}"
        )
    if not 1 <= num_neighbours <= positions.shape[1]:
        raise ValueError(
            f"neighbours: a set of {positions.shape[1]} points has no {num_neighbours} neighbours. "
            f"Expected 1 to {positions.shape[1]}. Use more points or fewer neighbours"
        )
    with torch.no_grad():
        # The form with a matrix product is inexact for near points, whose order matters here.
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(query.float(), positions.float(), compute_mode=mode)
        nearest = distances.topk(num_neighbours, dim=2, largest=False)
    return nearest.indices, nearest.values


def gather_points(values: Tensor, indices: Tensor) -> Tensor:
    """Select rows of each point set.

    Args:
        values: (N, P, C).
        indices: (N, ...), int64.

    Returns:
        (N, ..., C).

    Example:
        >>> gather_points(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[[2.],
                 [2.],
                 [1.]]])
    """
    flat = indices.flatten(1)[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, flat).view(*indices.shape, values.shape[2])


def interpolate_points(
    values: Tensor, positions: Tensor, query: Tensor, num_neighbours: int = 3
) -> Tensor:
    """Interpolate values of points at other positions (Qi et al. 2017, PointNet++, Eq. 2).

    The weights of the neighbours are the inverse squares of their distances. At a point of the set
    the result is the value of that point.

    Args:
        values: (N, P, C).
        positions: (N, P, 3).
        query: (N, Q, 3).
        num_neighbours: number of neighbours; at most P of them are used.

    Returns:
        (N, Q, C), with the gradient by ``values``.

    Example:
        >>> points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
        >>> middle = torch.tensor([[[0.5, 0.0, 0.0]]])
        >>> interpolate_points(torch.tensor([[[2.0], [4.0]]]), points, middle)
        tensor([[[3.]]])
    """
    num_neighbours = min(num_neighbours, positions.shape[1])
    indices, distances = nearest_neighbours(query, positions, num_neighbours)
    weights = distances.clamp_min(SMALLEST_DISTANCE).square().reciprocal()
    weights = weights / weights.sum(2, keepdim=True)
    return (gather_points(values, indices) * weights.to(values.dtype)[..., None]).sum(2)
