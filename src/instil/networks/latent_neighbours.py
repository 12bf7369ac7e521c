"""Student of Cold Brew: a perceptron with a latent neighbourhood for nodes without edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.mlp import MLP


class LatentNeighbours(nn.Module):
    """Perceptron on the features of a node and the mean of its latent neighbours.

    A first perceptron estimates the teacher's embedding of a node from its features. The nodes of a
    bank whose embeddings have the largest inner product with the estimate are its latent
    neighbours, weighted by a softmax. The scheme ``cold_brew`` fills the bank, which is part of the
    weights.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layers.
        embedding: width of the teacher's embedding.
        neighbours: number of latent neighbours.
    """

    def __init__(
        self, classes: int, features: int, nodes: int, width: int, embedding: int, neighbours: int
    ):
        super().__init__()
        self.estimator = MLP(embedding, features, width, 1)
        self.classifier = MLP(classes, features + embedding, width, 1)
        self.neighbours = min(neighbours, nodes)
        self.bank: Tensor
        self.is_known: Tensor
        self.register_buffer("bank", torch.zeros(nodes, embedding))
        self.register_buffer("is_known", torch.zeros(nodes))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute ``logits`` (n, classes) and ``structure`` (n, embedding), the estimate.

        Args:
            x: (n, features).
        """
        estimate = self.estimator(x)
        # As in the paper, the two perceptrons learn separately.
        latent = self.latent(estimate.detach())
        return {"logits": self.classifier(torch.cat([x, latent], 1)), "structure": estimate}

    def latent(self, estimate: Tensor) -> Tensor:
        """Mean (n, embedding) of the latent neighbours; 0 while the bank is empty.

        Args:
            estimate: (n, embedding).
        """
        bank = self.bank.to(estimate.dtype)
        scores = (estimate @ bank.T).masked_fill(self.is_known == 0, -torch.inf)
        best, nearest = scores.topk(self.neighbours, dim=1)
        # The softmax of a row of -inf would be NaN.
        weight = torch.where(best.isfinite(), best, torch.finfo(best.dtype).min).softmax(1)
        weight = torch.where(best.isfinite(), weight, 0.0)
        return (weight[:, :, None] * bank[nearest]).sum(1)

    def remember(self, index: Tensor, embedding: Tensor) -> None:
        """Store the teacher's embeddings of nodes.

        Args:
            index: (n,), indices of the nodes in the graph.
            embedding: (n, embedding).
        """
        self.bank[index] = embedding.to(self.bank)
        self.is_known[index] = 1


def latent_neighbours(
    classes: PositiveInt,
    features: PositiveInt,
    nodes: PositiveInt,
    width: PositiveInt = 64,
    embedding: PositiveInt = 64,
    neighbours: PositiveInt = 10,
) -> nn.Module:
    """Build the student of Cold Brew (Zheng et al. 2022), for the scheme ``cold_brew``.

    Args:
        classes: number of classes.
        features: number of features of a node.
        nodes: number of nodes of the graph.
        width: width of the hidden layers.
        embedding: width of the teacher's embedding.
        neighbours: number of latent neighbours.
    """
    return LatentNeighbours(classes, features, nodes, width, embedding, neighbours)
