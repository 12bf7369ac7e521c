"""Nodes with candidate partners, in batches with the graph around them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from instil.core import Batch
from instil.data.label_kinds import GradedData
from instil.data.nodes import Nodes
from instil.data.samples import Rows


class Links(GradedData):
    """Nodes (anchors), each with candidates that may be joined to it by an edge.

    The label (N, D) is 1 for a candidate with an edge, 0 for one without, and -100 if it is not
    known. A batch has, besides ``label``:

    - ``pair_index`` (N, 1 + D): indices in the graph of each anchor and its candidates;
    - ``pair_position`` (N, 1 + D): their rows in ``x``;
    - ``end_index`` (k,): indices in the graph of the first k rows of ``x``, which are the anchors
      and candidates; the further rows are their neighbours;
    - ``x`` (n, F) and ``edge_index`` (2, e): the graph around them.

    A sample belongs to one of several graphs, in which the edge of the sample itself is missing.
    Networks that read edges therefore never see the edge that they predict. Outputs do not depend
    on the batch.

    Args:
        pair_index: (N, 1 + D), anchor and candidates.
        label: (N, D).
        graphs: graphs that networks read, of the same nodes.
        part: (N,), index of the graph of each sample.
    """

    noun = "anchor"

    def __init__(self, pair_index: Tensor, label: Tensor, graphs: Sequence[Nodes], part: Tensor):
        num_nodes, num_features = graphs[0].features.shape
        self.graphs = tuple(graphs)
        facts = {"features": num_features, "nodes": num_nodes}
        super().__init__({"pair_index": pair_index, "part": part}, label, facts)

    @property
    def hops(self) -> int:
        """Number of edges up to which neighbours are added to a batch."""
        return self.graphs[0].hops

    def with_hops(self, hops: int) -> Self:
        """Return the same samples with all edges up to another number of hops.

        Args:
            hops: number of edges up to which neighbours are added.
        """
        links = copy.copy(self)
        links.graphs = tuple(graph.with_hops(hops) for graph in self.graphs)
        return links

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """Labels, and features and edges of the graphs."""
        values = [self.label]
        for graph in self.graphs:
            values += [graph.features, graph.edges]
        return tuple(values)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the rows in random order, those of one graph after the other.

        Most batches then need one graph only.
        """
        order = torch.randperm(len(self), generator=generator)
        rank = torch.randperm(len(self.graphs), generator=generator)
        return order[rank[self.tensors["part"][order]].argsort(stable=True)]

    def __getitems__(self, rows: Rows) -> Batch:
        batch = super().__getitems__(rows)
        part = batch.pop("part")
        pair_index: Tensor = batch["pair_index"]
        position = torch.zeros_like(pair_index)
        subgraphs: list[Batch] = []
        ends: list[Tensor] = []
        for index in torch.unique(part).tolist():
            is_inside = part == index
            nodes, inverse = torch.unique(pair_index[is_inside], return_inverse=True)
            position[is_inside] = inverse + sum(map(len, ends))
            subgraphs.append(self.graphs[index].__getitems__(nodes))
            ends.append(nodes)
        x, edge_index = _joined(subgraphs, [len(nodes) for nodes in ends])
        return {
            **batch,
            "pair_position": position,
            "end_index": torch.cat(ends),
            "x": x,
            "edge_index": edge_index,
        }


def _joined(subgraphs: Sequence[Batch], num_ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features and edges of several graphs as one; the first ``num_ends`` nodes of each first."""
    if len(subgraphs) == 1:
        return subgraphs[0]["x"], subgraphs[0]["edge_index"]
    first_end = 0
    first_other = sum(num_ends)
    edges: list[Tensor] = []
    for graph, count in zip(subgraphs, num_ends, strict=True):
        num_others = len(graph["x"]) - count
        new_index = torch.cat(
            [first_end + torch.arange(count), first_other + torch.arange(num_others)]
        )
        edges.append(new_index[graph["edge_index"]])
        first_end += count
        first_other += num_others
    ends = [graph["x"][:count] for graph, count in zip(subgraphs, num_ends, strict=True)]
    others = [graph["x"][count:] for graph, count in zip(subgraphs, num_ends, strict=True)]
    return torch.cat([*ends, *others]), torch.cat(edges, 1)
