"""A graph isomorphism network (Xu et al. 2019) for whole graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt

READOUTS = ("mean", "sum", "max")


class GINLayer(nn.Module):
    """Two linear layers on ``(1 + epsilon) x`` plus the sum over the neighbours.

    Args:
        inputs: number of input features.
        outputs: number of output features.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.first = nn.Linear(inputs, outputs)
        self.second = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Compute the outputs of nodes.

        Args:
            x: (N, K, inputs).
            adjacency: (N, K, K), 1 at ``[i, target, source]``.
        """
        total = (1 + self.epsilon) * x + adjacency @ x
        outputs: Tensor = self.second(self.first(total).relu())
        return outputs.relu()


class GIN(nn.Module):
    """``depth`` layers, the readout over the nodes of each graph, and a linear head.

    Without layers the head reads the mean, sum or maximum of the features.

    Args:
        classes: number of classes.
        features: number of features of a node.
        width: width of the layers.
        depth: number of layers.
        readout: ``mean``, ``sum`` or ``max`` over the nodes of a graph.
    """

    def __init__(self, classes: int, features: int, width: int, depth: int, readout: str):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.layers = nn.ModuleList(GINLayer(i, o) for i, o in pairwise(sizes))
        self.readout = readout
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor, adjacency: Tensor, node_mask: Tensor) -> Tensor:
        """Compute logits (N, classes).

        Args:
            x: (N, K, features).
            adjacency: (N, K, K), True at ``[i, target, source]`` for an edge.
            node_mask: (N, K), False for padding.
        """
        edges = adjacency.to(x.dtype)
        for layer in self.layers:
            x = layer(x, edges)
        mask = node_mask[..., None]
        if self.readout == "max":
            embedding = x.masked_fill(~mask, -torch.inf).amax(1)
        else:
            embedding = x.masked_fill(~mask, 0).sum(1)
        if self.readout == "mean":
            embedding = embedding / node_mask.sum(1, keepdim=True)
        logits: Tensor = self.head(embedding)
        return logits


def gin(
    classes: PositiveInt,
    features: PositiveInt,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 3,
    readout: Literal["mean", "sum", "max"] = "mean",
) -> nn.Module:
    """Build a GIN: 21,709 parameters for 10 classes and 3 features at the defaults.

    Args:
        classes: number of classes.
        features: number of features of a node.
        width: width of the layers.
        depth: number of layers: the number of edges up to which a node sees others.
        readout: ``mean``, ``sum`` or ``max`` over the nodes of a graph.

    Raises:
        ValueError: for another readout.
    """
    if readout not in READOUTS:
        raise ValueError(f"readout: '{readout}' is unknown. Expected one of {', '.join(READOUTS)}")
    return GIN(classes, features, width, depth, readout)
