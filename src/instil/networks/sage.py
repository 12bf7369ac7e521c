"""A graph network that keeps each node apart from its neighbours (GraphSAGE)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt


class SAGELayer(nn.Module):
    """ReLU of one linear map of a node plus another one of the mean over its neighbours.

    A node without an edge into it has the mean 0.

    Args:
        inputs: number of input features.
        outputs: number of output features.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.neighbours = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Compute the outputs of nodes.

        Args:
            x: (n, inputs).
            edge_index: (2, E), source and target.
        """
        source, target = edge_index
        # The mean commutes with the linear map, and the edges carry fewer numbers after it.
        values = self.neighbours(x)
        total = values.new_zeros(values.shape).index_add(0, target, values[source])
        count = values.new_zeros(len(x)).index_add(0, target, values.new_ones(len(target)))
        outputs: Tensor = self.own(x) + total / count.clamp_min(1)[:, None]
        return outputs.relu()


class SAGE(nn.Module):
    """``stages`` of one layer each, and a linear head.

    The outputs of a node depend on nodes up to ``depth`` edges away.

    Args:
        classes: number of outputs.
        features: number of features of a node.
        width: width of the hidden layers.
        depth: number of layers.
        dropout: share of the outputs of each layer that training sets to zero.
    """

    def __init__(self, classes: int, features: int, width: int, depth: int, dropout: float = 0.0):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.dropout = dropout
        self.stages = nn.ModuleList(SAGELayer(i, o) for i, o in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Compute logits (n, classes).

        Args:
            x: (n, features).
            edge_index: (2, E), source and target.
        """
        for stage in self.stages:
            x = F.dropout(stage(x, edge_index), self.dropout, self.training)
        logits: Tensor = self.head(x)
        return logits


def sage(
    classes: PositiveInt,
    features: PositiveInt,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 2,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Build a GraphSAGE network with the mean over neighbours (Hamilton et al. 2017).

    It has 17,162 parameters for 10 classes and 64 features at the defaults.

    Args:
        classes: number of classes.
        features: number of features of a node.
        width: width of the hidden layers.
        depth: number of layers.
        dropout: share of the outputs of each layer that training sets to zero.
    """
    return SAGE(classes, features, width, depth, dropout)
