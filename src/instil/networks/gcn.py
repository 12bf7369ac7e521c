"""A graph convolutional network (Kipf & Welling 2017) with the mean over neighbours."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt


def neighbour_mean(x: Tensor, edge_index: Tensor) -> Tensor:
    """Mean over each node and the nodes with an edge to it.

    Args:
        x: (n, F).
        edge_index: (2, E), from and to.
    """
    source, target = edge_index
    total = x.index_add(0, target, x[source])
    # Only incoming edges count: the edges of the outermost nodes of a batch are cut off, and a
    # normalisation by both degrees would change the outputs of their neighbours.
    count = x.new_ones(len(x)).index_add(0, target, x.new_ones(len(target)))
    return total / count[:, None]


class GraphConvolution(nn.Module):
    """Linear layer and ReLU on the mean over a node and the nodes with an edge to it.

    Args:
        inputs: number of input features.
        outputs: number of output features.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Compute the outputs of nodes.

        Args:
            x: (n, inputs).
            edge_index: (2, E), from and to.
        """
        if self.linear.out_features < self.linear.in_features:
            # The mean commutes with the linear map, and the edges carry fewer numbers after it.
            outputs = neighbour_mean(self.linear(x), edge_index)
        else:
            outputs = self.linear(neighbour_mean(x, edge_index))
        return outputs.relu()


class GCN(nn.Module):
    """``stages`` of one graph convolution each, and a linear head.

    The logits of a node depend on nodes up to ``depth`` edges away, one more with
    ``mean_logits``.

    Args:
        classes: number of classes.
        features: number of features of a node.
        width: width of the hidden layers.
        depth: number of graph convolutions.
        dropout: share of the outputs of each convolution that training sets to zero.
        mean_logits: whether the logits of a node are the mean over itself and its neighbours, so
            that the head is a convolution, too.
    """

    def __init__(
        self,
        classes: int,
        features: int,
        width: int,
        depth: int,
        dropout: float = 0.0,
        mean_logits: bool = False,
    ):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.dropout = dropout
        self.mean_logits = mean_logits
        self.stages = nn.ModuleList(GraphConvolution(i, o) for i, o in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Compute logits (n, classes).

        Args:
            x: (n, features).
            edge_index: (2, E), from and to.
        """
        for stage in self.stages:
            x = F.dropout(stage(x, edge_index), self.dropout, self.training)
        logits: Tensor = self.head(x)
        return neighbour_mean(logits, edge_index) if self.mean_logits else logits


def gcn(
    classes: PositiveInt,
    features: PositiveInt,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 2,
    dropout: Fraction = 0.0,
    mean_logits: bool = False,
) -> nn.Module:
    """Build a GCN: 8,970 parameters for 10 classes and 64 features at the defaults.

    Args:
        classes: number of classes.
        features: number of features of a node.
        width: width of the hidden layers.
        depth: number of graph convolutions.
        dropout: share of the outputs of each convolution that training sets to zero.
        mean_logits: whether the logits of a node are the mean over itself and its neighbours, so
            that the head is a convolution, too.
    """
    return GCN(classes, features, width, depth, dropout, mean_logits)
