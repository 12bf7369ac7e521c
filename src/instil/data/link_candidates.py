"""Candidates of the nodes of a graph: random nodes without an edge, and nodes of random walks."""

from __future__ import annotations

import torch
from torch import Tensor


class Neighbours:
    """Neighbours of each node, for random draws.

    Args:
        pairs: (2, E), distinct undirected edges without loops, at least one.
        num_nodes: number M of nodes.

    Attributes:
        degree: (M,), number of neighbours.
    """

    def __init__(self, pairs: Tensor, num_nodes: int):
        self.num_nodes = num_nodes
        source, target = torch.cat([pairs, pairs.flip(0)], dim=1)
        order = (source * num_nodes + target).argsort()
        self.target = target[order]
        self.degree = source.bincount(minlength=num_nodes)
        self.start = self.degree.cumsum(0) - self.degree

    def walk(self, anchor: Tensor, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Return nodes that random walks visit.

        Walks of ``length`` steps start at the anchor until there are ``count`` nodes. A step back
        to the anchor counts as its previous node. An anchor without an edge gets random nodes.

        Args:
            anchor: (N,), start of the walks.
            length: number of steps of a walk.
            count: number of nodes for each anchor.
            generator: source of the draws.

        Returns:
            (N, count), none of them the anchor.
        """
        columns: list[Tensor] = []
        has_edge = self.degree[anchor] > 0
        other = self.other_nodes(anchor, count, generator)
        node = anchor
        for step in range(count):
            node = anchor if step % length == 0 else node
            uniform = torch.rand(len(anchor), generator=generator, dtype=torch.float64)
            offset = (uniform * self.degree[node]).long()
            # A node without an edge may be behind the last edge; its step is not used.
            edge = (self.start[node] + offset).clamp_max(len(self.target) - 1)
            following = torch.where(has_edge, self.target[edge], node)
            node = torch.where(following == anchor, node, following)
            columns.append(torch.where(has_edge, node, other[:, step]))
        return torch.stack(columns, 1) if columns else other

    def other_nodes(self, anchor: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return uniformly drawn nodes other than the anchor, (N, count).

        Args:
            anchor: (N,).
            count: number of nodes for each anchor.
            generator: source of the draws.
        """
        shape = (len(anchor), count)
        drawn = torch.randint(0, max(self.num_nodes - 1, 1), shape, generator=generator)
        return drawn + (drawn >= anchor[:, None]).long()

    def negatives(self, anchor: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return uniformly drawn nodes that have no edge to the anchor, with replacement.

        Args:
            anchor: (N,).
            count: number of nodes for each anchor.
            generator: source of the draws.

        Returns:
            (N, count), none of them the anchor.

        Raises:
            ValueError: for an anchor with an edge to every other node.
        """
        num_free = self.num_nodes - 1 - self.degree[anchor]
        if (num_free < 1).any():
            node = int(anchor[num_free < 1][0])
            raise ValueError(
                f"edges: node {node} has an edge to every other node, so it has no negative pair. "
                "Expected at least one node without an edge to it. Leave the edges of the node out"
            )
        excluded = torch.cat([self.target, torch.arange(self.num_nodes)])
        owner = torch.arange(self.num_nodes).repeat_interleave(self.degree)
        owner = torch.cat([owner, torch.arange(self.num_nodes)])
        order = (owner * self.num_nodes + excluded).argsort()
        owner = owner[order]
        start = self.start + torch.arange(self.num_nodes)
        rank = torch.arange(len(owner)) - start[owner]
        # The number of allowed nodes below each excluded one does not decrease: the r-th allowed
        # node is r plus the number of excluded nodes that have at most r allowed nodes below.
        key = owner * (self.num_nodes + 1) + excluded[order] - rank
        uniform = torch.rand(len(anchor), count, generator=generator, dtype=torch.float64)
        drawn = (uniform * num_free[:, None]).long()
        position = torch.searchsorted(
            key, anchor[:, None] * (self.num_nodes + 1) + drawn, right=True
        )
        negatives: Tensor = drawn + position - start[anchor][:, None]
        return negatives
