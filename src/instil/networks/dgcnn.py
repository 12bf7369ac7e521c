"""A small dynamic graph CNN (Wang et al. 2019)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.core import to_float32
from instil.networks.pointnet import PointLayer


class EdgeConv(nn.Module):
    """Maximum over the nearest neighbours of a layer on (point, neighbour - point).

    The neighbours are those in the space of the input features.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        neighbours: number of neighbours; the point itself is one of them.
    """

    def __init__(self, inputs: int, outputs: int, neighbours: int):
        super().__init__()
        self.neighbours = neighbours
        self.layer = nn.Sequential(
            nn.Conv2d(2 * inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Compute (N, outputs, P) of (N, inputs, P)."""
        indices = feature_neighbours(values, self.neighbours)
        flat = indices.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        near = values.gather(2, flat).view(*values.shape, self.neighbours)
        centre = values.unsqueeze(3).expand_as(near)
        edges = torch.cat([centre, near - centre], 1)
        result: Tensor = self.layer(edges).amax(3)
        return result


def feature_neighbours(values: Tensor, neighbours: int) -> Tensor:
    """Indices (N, P, k) of the nearest points in the space of the features.

    Distances are computed in float32 or better, under autocast too.

    Args:
        values: (N, C, P).
        neighbours: number k of neighbours.

    Raises:
        ValueError: for fewer than k points.
    """
    num_points = values.shape[2]
    if num_points < neighbours:
        raise ValueError(
            f"neighbours: the set has {num_points} points. Expected at most that many "
            f"neighbours, got {neighbours}. Set options.neighbours"
        )
    # Far from the origin, products are large and their differences lose all digits.
    centred = to_float32(values.detach())
    centred = centred - centred.mean(2, keepdim=True)
    # The order of the squared distances to one point does not depend on its own norm. ``cdist`` is
    # no operator of ONNX.
    with torch.autocast(values.device.type, enabled=False):
        products = centred.mT @ centred
    norms = products.diagonal(dim1=1, dim2=2)
    return (norms[:, None] - 2 * products).topk(neighbours, dim=2, largest=False).indices


class DGCNN(nn.Module):
    """``stages`` of one EdgeConv each, a layer on all their outputs, maximum over points, head.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of the first stage; each further one has twice the width.
        depth: number of stages.
        neighbours: number of neighbours of a point.

    Attributes:
        layout: layout of the outputs of the stages, (N, C, P).
    """

    layout: ClassVar[str] = "signal"

    def __init__(self, classes: int, channels: int, width: int, depth: int, neighbours: int):
        super().__init__()
        sizes = [channels, *(width * 2**level for level in range(depth))]
        self.stages = nn.ModuleList(EdgeConv(i, o, neighbours) for i, o in pairwise(sizes))
        self.merge = PointLayer(sum(sizes[1:]), 2 * sizes[-1])
        self.head = nn.Linear(2 * sizes[-1], classes)

    def forward(self, points: Tensor) -> Tensor:
        """Compute logits (N, classes) of points (N, P, channels)."""
        values = points.mT
        levels = []
        for stage in self.stages:
            values = stage(values)
            levels.append(values)
        merged = self.merge(torch.cat(levels, 1))
        logits: Tensor = self.head(merged.amax(2))
        return logits


def dgcnn(
    classes: PositiveInt,
    channels: PositiveInt = 3,
    width: PositiveInt = 32,
    depth: PositiveInt = 3,
    neighbours: PositiveInt = 16,
) -> nn.Module:
    """Build a DGCNN: 81,546 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of the first stage; each further one has twice the width.
        depth: number of stages.
        neighbours: number of neighbours of a point, at most the number of points.
    """
    return DGCNN(classes, channels, width, depth, neighbours)
