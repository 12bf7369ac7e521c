"""Labelled nodes of a graph, in batches with their neighbours."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from instil.core import UNLABELLED, Batch
from instil.data.samples import Facts, Rows, Samples

LABEL_PRIOR = "label_prior"
"""Batch key of the training labels (n, C) as one-hot rows, 0 for all other nodes."""


class Nodes(Samples):
    """Labelled nodes of a graph; a batch is the subgraph around the requested rows.

    A batch contains the requested nodes first, then all nodes from which they are reached in
    ``hops`` edges: ``x`` (n, F), ``edge_index`` (2, e) with the edges among them, and ``valid``,
    False for the added neighbours. The output of a network of ``hops`` layers for a node does not
    depend on the batch.

    With ``fanout`` a batch has at most ``fanout`` random edges into each node, and only the nodes
    that these edges reach (GraphSAGE, Hamilton et al. 2017). The edges are a function of the rows.

    Attributes:
        fanout: largest number of edges into a node in a batch; None for all.

    Args:
        features: (M, F), of all nodes of the graph.
        edges: (2, E), source and target of all edges of the graph.
        hops: number of edges up to which neighbours are added.
        label: (N,), of the nodes of this data set.
        classes: class names.
        index: (N,), indices of these nodes in the graph.
        inputs: further inputs (M, ...) of all nodes, by batch key.
    """

    noun = "node"

    def __init__(
        self,
        features: Tensor,
        edges: Tensor,
        hops: int,
        label: Tensor,
        classes: Sequence[str],
        index: Tensor,
        inputs: Mapping[str, Tensor] | None = None,
    ):
        self.node_inputs = {"x": features, **(inputs or {})}
        self.features = features
        self.edges = edges
        self.hops = hops
        self.fanout: int | None = None
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        num_nodes, num_features = self.features.shape
        return {"classes": len(self.classes), "features": num_features, "nodes": num_nodes}

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """Labels, and the whole graph: neighbours of other splits are in the batches, too."""
        return (self.label, self.index, self.edges, *self.node_inputs.values())

    def with_hops(self, hops: int) -> Self:
        """Return the same nodes with all edges up to another number of hops.

        Args:
            hops: number of edges up to which neighbours are added.
        """
        nodes = copy.copy(self)
        nodes.hops = hops
        nodes.fanout = None
        return nodes

    def inputs(self, rows: Tensor) -> Batch:
        """Return the features of these nodes, without edges."""
        return {key: value[self.index[rows]] for key, value in self.node_inputs.items()}

    def keep_labels(self, rows: Tensor) -> Self:
        """Return the same nodes; only these rows keep their label.

        Raises:
            ValueError: if the nodes have ``label_prior``, which has all training labels.
        """
        if LABEL_PRIOR in self.node_inputs:
            raise ValueError(
                "num_labeled: label_prior shows the labels of all training nodes. Expected no "
                "num_labeled with label_prior. Choose fewer nodes in the train mask"
            )
        return super().keep_labels(rows)

    def _take(self, rows: Tensor) -> None:
        """Keep the whole graph."""

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the rows as small clusters of neighbours in random order.

        Batches then have edges among their own rows (Cluster-GCN, Chiang et al. 2019).
        """
        row_of_node = torch.full((len(self.features),), -1)
        row_of_node[self.index] = torch.arange(len(self))
        source, target = row_of_node[self.edges]
        inside = (source >= 0) & (target >= 0)
        neighbours: list[list[int]] = [[] for _ in range(len(self))]
        for start, end in zip(source[inside].tolist(), target[inside].tolist(), strict=True):
            neighbours[end].append(start)
        order: dict[int, None] = {}
        for row in torch.randperm(len(self), generator=generator).tolist():
            if row not in order:
                # A key that is already in the dictionary keeps its position.
                order.update(dict.fromkeys([row, *neighbours[row]]))
        return torch.tensor(list(order))

    def __getitems__(self, rows: Rows) -> Batch:
        rows = torch.as_tensor(rows, dtype=torch.int64)
        requested = self.index[rows]
        nodes, edges = self._neighbourhood(requested)
        position = torch.full((len(self.features),), -1)
        position[nodes] = torch.arange(len(nodes))
        edges = position[edges]
        num_added = len(nodes) - len(requested)
        no_label = torch.full(
            (num_added, *self.label.shape[1:]), UNLABELLED, dtype=self.label.dtype
        )
        return {
            **{key: value[nodes] for key, value in self.node_inputs.items()},
            "edge_index": edges[:, (edges >= 0).all(0)],
            "label": torch.cat([self.label[rows], no_label]),
            "index": nodes,
            "view": torch.zeros(len(nodes), dtype=torch.int64),
            "valid": torch.arange(len(nodes)) < len(requested),
        }

    def _neighbourhood(self, requested: Tensor) -> tuple[Tensor, Tensor]:
        """The requested nodes, then their neighbours; and edges, some of other nodes."""
        is_near = torch.zeros(len(self.features), dtype=torch.bool)
        is_near[requested] = True
        edges = self.edges
        if self.fanout is None:
            source, target = edges
            for _ in range(self.hops):
                is_near[source[is_near[target]]] = True
        else:
            edges = self._sampled_edges(requested, is_near)
        is_near[requested] = False
        return torch.cat([requested, is_near.nonzero().flatten()]), edges

    def _sampled_edges(self, requested: Tensor, is_near: Tensor) -> Tensor:
        """Sampled edges (2, e) into the nodes of each hop, whose sources become near."""
        assert self.fanout is not None
        # The rows decide the draws, so that a resumed training sees the same batches.
        seed = zlib.crc32(requested.numpy().tobytes())
        generator = torch.Generator().manual_seed(seed)
        frontier = torch.unique(requested)
        chosen: list[Tensor] = []
        for _ in range(self.hops):
            chosen.append(self._edges_into(frontier, self.fanout, generator))
            source = torch.unique(self.edges[0, chosen[-1]])
            frontier = source[~is_near[source]]
            is_near[frontier] = True
        return self.edges[:, torch.cat(chosen)]

    def _edges_into(self, nodes: Tensor, fanout: int, generator: torch.Generator) -> Tensor:
        """Indices of at most ``fanout`` random edges into each node."""
        order, starts = self._incoming
        first = starts[nodes]
        counts = starts[nodes + 1] - first
        group = torch.arange(len(nodes)).repeat_interleave(counts)
        offset = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
        key = torch.rand(len(group), generator=generator, dtype=torch.float64)
        # Random order inside each group; its first ``fanout`` edges are the sample.
        shuffled = (group + key).argsort()
        return order[(first[group] + offset)[shuffled[offset < fanout]]]

    @functools.cached_property
    def _incoming(self) -> tuple[Tensor, Tensor]:
        """Edge indices by target node, and the start of each node's edges (M + 1,)."""
        target = self.edges[1]
        counts = target.bincount(minlength=len(self.features))
        return target.argsort(stable=True), torch.cat([torch.zeros(1).long(), counts.cumsum(0)])
