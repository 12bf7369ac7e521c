"""A small PointNet++ for classification with single-scale grouping (Qi et al. 2017b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.cards import Positive, PositiveInt
from instil.items.neighbours import gather_points
from instil.networks.pointnet import PointLayer


def farthest_point_sampling(positions: Tensor, count: int) -> Tensor:
    """Select points one by one, each the farthest from those that are already selected.

    The first one is the point farthest from the mean, so that the order of the points has no effect
    on the selected set.

    Args:
        positions: (N, P, 3).
        count: number M of points, at most P.

    Returns:
        Indices (N, M), int64, in the order of selection.

    Example:
        >>> line = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
        >>> farthest_point_sampling(line, 2)
        tensor([[2, 0]])
    """
    positions = positions.detach()
    selected = squared_distances(positions.mean(1, keepdim=True), positions)[:, 0].argmax(1)
    indices = [selected]
    nearest = None
    for _ in range(count - 1):
        latest = gather_points(positions, selected[:, None])
        distance = squared_distances(latest, positions)[:, 0]
        nearest = distance if nearest is None else nearest.minimum(distance)
        selected = nearest.argmax(1)
        indices.append(selected)
    return torch.stack(indices, 1)


def ball_query(centres: Tensor, positions: Tensor, radius: float, count: int) -> Tensor:
    """Select the nearest points of a set that lie within a radius of each centre.

    Args:
        centres: (N, M, 3).
        positions: (N, P, 3).
        radius: largest distance from the centre.
        count: number k of points. If fewer lie in the ball, the nearest one takes the other places.

    Returns:
        Indices (N, M, k), int64, nearest first.

    Raises:
        ValueError: for fewer than k points.

    Example:
        >>> line = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
        >>> ball_query(line[:, :1], line, 2.0, 3)
        tensor([[[0, 1, 0]]])
    """
    num_points = positions.shape[1]
    if num_points < count:
        raise ValueError(
            f"neighbours: the level has {num_points} points. Expected at most that many "
            f"neighbours, got {count}. Set options.neighbours or use more points"
        )
    distances = squared_distances(centres.detach(), positions.detach())
    nearest, indices = distances.topk(count, dim=2, largest=False)
    return torch.where(nearest <= radius**2, indices, indices[..., :1])


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (N, M, P) between points (N, M, 3) and (N, P, 3)."""
    # Differences, not a matrix product: near points keep their order. ``cdist`` is no operator of
    # ONNX.
    return (first[:, :, None] - second[:, None]).square().sum(3)


class SetAbstraction(nn.Module):
    """Features of sampled centres: a shared perceptron on the points of a ball and their maximum.

    Args:
        inputs: number of features of a point besides its position.
        outputs: number of features of a centre.
        ratio: number of points per centre.
        radius: radius of a ball.
        neighbours: number of points of a ball.
    """

    def __init__(self, inputs: int, outputs: int, ratio: int, radius: float, neighbours: int):
        super().__init__()
        self.ratio = ratio
        self.radius = radius
        self.neighbours = neighbours
        self.layers = nn.Sequential(PointLayer(3 + inputs, outputs), PointLayer(outputs, outputs))

    def forward(self, positions: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute positions (N, M, 3) and features (N, M, outputs) of the centres.

        Args:
            positions: (N, P, 3).
            features: (N, P, inputs).
        """
        count = max(1, positions.shape[1] // self.ratio)
        centres = gather_points(positions, farthest_point_sampling(positions, count))
        near = ball_query(centres, positions, self.radius, self.neighbours)
        offsets = (gather_points(positions, near) - centres[:, :, None]) / self.radius
        grouped = torch.cat([offsets, gather_points(features, near)], 3)
        values = self.layers(grouped.flatten(1, 2).mT)
        return centres, values.unflatten(2, (count, self.neighbours)).amax(3).mT


class PointNetPlusPlus(nn.Module):
    """Set abstractions, a layer on their centres, the maximum over the centres, and a head.

    Args:
        classes: number of classes.
        channels: number of values of a point: x, y and z first.
        width: features of a centre of the first level; each further level has twice the number.
        depth: number of set abstractions.
        ratio: number of points per centre.
        radius: radius of a ball of the first level; that of each further level is twice as large.
        neighbours: number of points of a ball.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        width: int,
        depth: int,
        ratio: int,
        radius: float,
        neighbours: int,
    ):
        super().__init__()
        sizes = [channels - 3, *(width * 2**level for level in range(depth))]
        # Not `stages`: each level has its own points, and the levels are returned with them.
        self.abstractions = nn.ModuleList(
            SetAbstraction(sizes[i], sizes[i + 1], ratio, radius * 2**i, neighbours)
            for i in range(depth)
        )
        self.merge = PointLayer(3 + sizes[-1], 2 * sizes[-1])
        self.head = nn.Linear(2 * sizes[-1], classes)

    def forward(self, points: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Compute the outputs for points (N, P, channels).

        Returns:
            ``logits`` (N, classes); ``features``, the features (N, P_l, C_l) of each level, and
            their ``positions`` (N, P_l, 3).
        """
        positions, features = points[..., :3], points[..., 3:]
        levels = []
        centres = []
        for abstraction in self.abstractions:
            positions, features = abstraction(positions, features)
            levels.append(features)
            centres.append(positions)
        merged = self.merge(torch.cat([positions, features], 2).mT)
        logits = self.head(merged.amax(2))
        return {"logits": logits, "features": tuple(levels), "positions": tuple(centres)}


def pointnet_plus_plus(
    classes: PositiveInt,
    channels: PositiveInt = 3,
    width: PositiveInt = 32,
    depth: PositiveInt = 2,
    ratio: PositiveInt = 4,
    radius: Positive = 0.4,
    neighbours: PositiveInt = 16,
) -> nn.Module:
    """Build a PointNet++: 17,962 parameters for 10 classes at the defaults.

    A level has at least one centre. The positions should have a radius of about 1.

    Args:
        classes: number of classes.
        channels: number of values of a point: x, y and z first.
        width: features of a centre of the first level; each further level has twice the number.
        depth: number of set abstractions.
        ratio: number of points per centre.
        radius: radius of a ball of the first level; that of each further level is twice as large.
        neighbours: number of points of a ball, at most the number of points of its level.

    Raises:
        ValueError: if an option is too small.
    """
    limits = (("channels", channels, 3), ("depth", depth, 1), ("ratio", ratio, 1))
    for name, value, smallest in limits:
        if value < smallest:
            raise ValueError(
                f"pointnet_plus_plus.{name}: too small. Expected at least {smallest}, got {value}"
            )
    if radius <= 0:
        raise ValueError(
            f"pointnet_plus_plus.radius: not positive. Expected a number above 0, got {radius}"
        )
    return PointNetPlusPlus(classes, channels, width, depth, ratio, radius, neighbours)
