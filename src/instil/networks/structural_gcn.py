"""Teacher of Cold Brew: a graph network with a learned vector for each node."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.networks.gcn import neighbour_mean


class StructuralGCN(nn.Module):
    """Graph convolutions ``relu(mean(W x + E))`` with a learned vector ``E`` of each node.

    The vectors hold what the features of a node do not show. They start at 0, so a node that is in
    no training batch has none. The logits depend on nodes up to ``depth`` edges away.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layers.
        depth: number of graph convolutions.
        dropout: share of the outputs of each convolution that training sets to zero.
    """

    def __init__(
        self, classes: int, features: int, nodes: int, width: int, depth: int, dropout: float
    ):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.dropout = dropout
        self.linear = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.structure = nn.ModuleList(nn.Embedding(nodes, size) for size in sizes[1:])
        for table in self.structure:
            assert isinstance(table, nn.Embedding)
            nn.init.zeros_(table.weight)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor, edge_index: Tensor, index: Tensor) -> Tensor:
        """Compute logits (n, classes).

        Args:
            x: (n, features).
            edge_index: (2, E), from and to.
            index: (n,), indices of the nodes in the graph.
        """
        for linear, structure in zip(self.linear, self.structure, strict=True):
            x = neighbour_mean(linear(x) + structure(index), edge_index).relu()
            x = F.dropout(x, self.dropout, self.training)
        logits: Tensor = self.head(x)
        return logits


def structural_gcn(
    classes: PositiveInt,
    features: PositiveInt,
    nodes: PositiveInt,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 2,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Build the teacher of Cold Brew (Zheng et al. 2022); weight decay limits its vectors.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layers.
        depth: number of graph convolutions, at most ``data.hops``.
        dropout: share of the outputs of each convolution that training sets to zero.
    """
    return StructuralGCN(classes, features, nodes, width, depth, dropout)
