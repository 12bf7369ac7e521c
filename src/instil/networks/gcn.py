"""A graph convolutional net (Kipf & Welling 2017), each node the mean of itself and its neighbours."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """A linear layer of the mean over a node and the nodes with an edge to it, and ReLU.

    The mean is over the edges that come in alone, so that nodes at the rim of a batch, whose own neighbours are cut off, distort no other.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        total = x.index_add(0, target, x[source])
        count = x.new_ones(len(x)).index_add(0, target, x.new_ones(len(target)))
        outputs: Tensor = self.linear(total / count[:, None])
        return outputs.relu()


class GCN(nn.Module):
    """``stages`` of one convolution each, and a linear head; what is said of a node depends on nodes up to so many edges away."""

    def __init__(self, classes: int, features: int, width: int, depth: int):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.stages = nn.ModuleList(GraphConvolution(i, o) for i, o in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x, edge_index)
        logits: Tensor = self.head(x)
        return logits


def gcn(classes: int, features: int, width: int = 64, depth: int = 2) -> nn.Module:
    """8,970 parameters for 10 classes and 64 features at the defaults; ``x`` (n, features) and ``edge_index`` (2, E), from and to."""
    return GCN(classes, features, width, depth)
