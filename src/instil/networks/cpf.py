"""Student of CPF: label propagation and a perceptron, mixed per node (Yang et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.core import to_float32
from instil.functional.graph import log_softmax_into
from instil.networks.mlp import MLP

SMALLEST = 1e-6
"""Lower limit of probabilities before the logarithm."""


class CPF(nn.Module):
    """Mixture ``alpha_v * propagation(v) + (1 - alpha_v) * softmax(perceptron(x_v))``.

    Label propagation starts from the training labels, and from the uniform distribution for other
    nodes. In each of ``depth`` steps a node without a training label takes the weighted mean over
    itself and the nodes with an edge to it; the weight of a node is ``exp(confidence)``, normalized
    over the neighbourhood. ``alpha_v`` (a sigmoid) and the confidence are learned for each node, so
    nodes that are in no training batch keep their start.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layer.
        depth: number of propagation steps.
    """

    def __init__(self, classes: int, features: int, nodes: int, width: int, depth: int):
        super().__init__()
        self.depth = depth
        self.perceptron = MLP(classes, features, width, 1)
        self.confidence = nn.Parameter(torch.zeros(nodes))
        self.balance = nn.Parameter(torch.zeros(nodes))

    def forward(self, x: Tensor, edge_index: Tensor, index: Tensor, label_prior: Tensor) -> Tensor:
        """Compute logits (n, classes), the logarithms of the mixture.

        Args:
            x: (n, features).
            edge_index: (2, E), from and to.
            index: (n,), indices of the nodes in the graph.
            label_prior: (n, classes), one-hot for training labels, 0 for other nodes.
        """
        is_labelled = label_prior.sum(1, keepdim=True) > 0
        uniform = torch.full_like(label_prior, 1 / label_prior.shape[1])
        beginning = torch.where(is_labelled, label_prior, uniform)
        loops = torch.arange(len(x), device=x.device)
        source = torch.cat([edge_index[0], loops])
        target = torch.cat([edge_index[1], loops])
        confidence = to_float32(self.confidence)[index][source]
        counted = torch.ones_like(source, dtype=torch.bool)
        weight = log_softmax_into(confidence, target, len(x), counted).exp()[:, None]
        propagated = beginning
        for _ in range(self.depth):
            mixed = torch.zeros_like(beginning).index_add(0, target, weight * propagated[source])
            propagated = torch.where(is_labelled, beginning, mixed)
        alpha = to_float32(self.balance)[index].sigmoid()[:, None]
        own = to_float32(self.perceptron(x)).softmax(1)
        return (alpha * propagated + (1 - alpha) * own).clamp(min=SMALLEST).log()


def cpf(
    classes: PositiveInt,
    features: PositiveInt,
    nodes: PositiveInt,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 2,
) -> nn.Module:
    """Build the student of CPF, which needs ``data.label_prior`` of a graph source.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layer.
        depth: number of propagation steps, at most ``data.hops``.
    """
    return CPF(classes, features, nodes, width, depth)
