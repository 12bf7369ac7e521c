"""A small point transformer (Zhao et al. 2021) without changes of the number of points."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.items.neighbours import gather_points
from instil.networks.dgcnn import feature_neighbours


class VectorAttention(nn.Module):
    """Attention of a point to its neighbours with one weight per channel, and a shortcut.

    Args:
        width: number of channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.position = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width))
        self.weight = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.projection = nn.Linear(width, width)

    def forward(self, values: Tensor, offsets: Tensor, neighbours: Tensor) -> Tensor:
        """Compute (N, P, width).

        Args:
            values: (N, P, width).
            offsets: positions of a point minus those of its neighbours (N, P, k, 3).
            neighbours: indices of the neighbours (N, P, k).
        """
        normed = self.norm(values)
        offset = self.position(offsets)
        keys, contents = (
            gather_points(layer(normed), neighbours) for layer in (self.key, self.value)
        )
        weights = self.weight(self.query(normed)[:, :, None] - keys + offset).softmax(2)
        result: Tensor = values + self.projection((weights * (contents + offset)).sum(2))
        return result


class PointTransformer(nn.Module):
    """A layer of each point, ``stages`` of one vector attention each, the maximum, and a head.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of all stages.
        depth: number of stages.
        neighbours: number of neighbours of a point.

    Attributes:
        layout: layout of the outputs of the stages, (N, P, C).
    """

    layout: ClassVar[str] = "sequence"

    def __init__(self, classes: int, channels: int, width: int, depth: int, neighbours: int):
        super().__init__()
        self.neighbours = neighbours
        self.stem = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        self.stages = nn.ModuleList(VectorAttention(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, points: Tensor) -> Tensor:
        """Compute logits (N, classes) of points (N, P, channels)."""
        xyz = points[..., :3]
        neighbours = feature_neighbours(xyz.mT, self.neighbours)
        offsets = xyz[:, :, None] - gather_points(xyz, neighbours)
        values = self.stem(points)
        for stage in self.stages:
            values = stage(values, offsets, neighbours)
        logits: Tensor = self.head(self.norm(values).amax(1))
        return logits


def point_transformer(
    classes: PositiveInt,
    channels: PositiveInt = 3,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 3,
    neighbours: PositiveInt = 8,
) -> nn.Module:
    """Build a point transformer: 24,330 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of all stages.
        depth: number of stages.
        neighbours: number of neighbours of a point, at most the number of points.
    """
    return PointTransformer(classes, channels, width, depth, neighbours)
