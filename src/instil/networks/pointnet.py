"""A small PointNet (Qi et al. 2017) without transformation networks."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt


class PointLayer(nn.Sequential):
    """Linear layer of each point, BatchNorm and ReLU, on (N, C, P).

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
    """

    def __init__(self, inputs: int, outputs: int):
        # A bias before BatchNorm would have no effect.
        super().__init__(
            nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
        )


class PointNet(nn.Module):
    """``stages`` of one shared layer for all points, the maximum over the points, and a head.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of the first stage; each further one has twice the width.
        depth: number of stages.
        dropout: share of the pooled features that is dropped in training.

    Attributes:
        layout: layout of the outputs of the stages, (N, C, P).
    """

    layout: ClassVar[str] = "signal"

    def __init__(self, classes: int, channels: int, width: int, depth: int, dropout: float):
        super().__init__()
        sizes = [channels, *(width * 2**level for level in range(depth))]
        self.stages = nn.ModuleList(PointLayer(i, o) for i, o in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, points: Tensor) -> Tensor:
        """Compute logits (N, classes) of points (N, P, channels)."""
        values = points.mT
        for stage in self.stages:
            values = stage(values)
        logits: Tensor = self.head(self.dropout(values.amax(2)))
        return logits


def pointnet(
    classes: PositiveInt,
    channels: PositiveInt = 3,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 3,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Build a PointNet for any number of points: 12,074 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of values of a point.
        width: width of the first stage; each further one has twice the width.
        depth: number of stages.
        dropout: share of the pooled features that is dropped in training.
    """
    return PointNet(classes, channels, width, depth, dropout)
