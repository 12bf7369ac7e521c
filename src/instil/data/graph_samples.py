"""Labelled graphs in memory, in padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.labels import class_index_names
from instil.data.samples import Facts, Samples


class Graphs(Samples):
    """Labelled graphs; a batch is padded to its largest graph.

    A batch contains ``x`` (N, K, F), the features of up to K nodes; ``adjacency`` (N, K, K), True
    at ``[i, target, source]`` for an edge; and ``node_mask`` (N, K), False for padding.

    Args:
        features: (M, F), of the nodes of all graphs, graph by graph.
        edges: (2, E), source and target, as rows of ``features``.
        num_nodes: (N,), number of nodes of each graph, at least 1.
        label: (N,) class indices, or (N, C) for several classes per graph; -100 for none.
        classes: class names.

    Raises:
        ValueError: for arrays that do not fit together.
    """

    noun = "graph"

    def __init__(
        self,
        features: Tensor,
        edges: Tensor,
        num_nodes: Tensor,
        label: Tensor,
        classes: Sequence[str],
    ):
        features = features.float()
        _check(features, edges, num_nodes, label)
        self.features = features
        self.sizes = num_nodes
        self.starts = num_nodes.cumsum(0) - num_nodes
        graph_of_node = torch.arange(len(num_nodes)).repeat_interleave(num_nodes)
        _check_edges(edges, graph_of_node)
        graph = graph_of_node[edges[0]]
        order = graph.argsort(stable=True)
        # Positions within each graph, ordered by graph.
        self.edges = (edges - self.starts[graph])[:, order]
        self.num_edges = graph.bincount(minlength=len(num_nodes))
        self.edge_starts = self.num_edges.cumsum(0) - self.num_edges
        self.graph = torch.arange(len(num_nodes))
        super().__init__(label, classes)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), "features": self.features.shape[1]}

    def inputs(self, rows: Tensor) -> Batch:
        graph = self.graph[rows]
        sizes = self.sizes[graph]
        position = torch.arange(int(sizes.max()) if len(graph) else 0)
        node_mask = position < sizes[:, None]
        node = (self.starts[graph][:, None] + position).clamp_max(len(self.features) - 1)
        x = torch.where(node_mask[..., None], self.features[node], 0.0)
        counts = self.num_edges[graph]
        row = torch.arange(len(graph)).repeat_interleave(counts)
        offset = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        source, target = self.edges[:, self.edge_starts[graph][row] + offset]
        adjacency = torch.zeros(len(graph), len(position), len(position), dtype=torch.bool)
        adjacency[row, target, source] = True
        return {"x": x, "adjacency": adjacency, "node_mask": node_mask}

    def _take(self, rows: Tensor) -> None:
        self.graph = self.graph[rows]


def pyg_graphs(graphs: Sequence[Any], classes: Sequence[str] | None = None) -> Graphs:
    """Return the graphs of a data set of PyTorch Geometric, for ``graph_classification``.

    Args:
        graphs: objects with ``x`` (n, F), ``edge_index`` (2, e) and ``y``: one class index, or
            (1, C) for several classes.
        classes: class names; None for indices.

    Raises:
        ValueError: for no graphs, and for a graph without features or label.
    """
    for index, graph in enumerate(graphs):
        for name in ("x", "edge_index", "y"):
            if getattr(graph, name, None) is None:
                raise ValueError(f"graphs[{index}].{name}: missing. Expected x, edge_index and y")
    if not len(graphs):
        raise ValueError("graphs: empty. Expected at least one graph")
    num_nodes = torch.tensor([len(graph.x) for graph in graphs])
    starts = (num_nodes.cumsum(0) - num_nodes).tolist()
    edges = [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)]
    labels = [torch.as_tensor(graph.y) for graph in graphs]
    label = torch.cat([one.reshape(1, -1) for one in labels])
    label = label[:, 0] if label.shape[1] == 1 else label.float()
    return Graphs(
        torch.cat([graph.x for graph in graphs]),
        torch.cat(edges, 1),
        num_nodes,
        label,
        list(classes or class_index_names(label)),
    )


def _check(features: Tensor, edges: Tensor, num_nodes: Tensor, label: Tensor) -> None:
    if features.ndim != 2 or not features.isfinite().all():
        problem = "not finite" if features.ndim == 2 else f"of shape {tuple(features.shape)}"
        raise ValueError(f"features: values are {problem}. Expected finite numbers (M, F)")
    if len(num_nodes) != len(label):
        raise ValueError(f"label: {len(label)} labels for {len(num_nodes)} graphs")
    if (num_nodes < 1).any():
        graph = int((num_nodes < 1).nonzero()[0])
        raise ValueError(f"graph {graph}: no nodes. Expected at least one. Leave the graph out")
    if int(num_nodes.sum()) != len(features):
        raise ValueError(
            f"features: {len(features)} rows for {int(num_nodes.sum())} nodes. Expected one row "
            "per node"
        )
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.is_floating_point():
        raise ValueError(
            f"edges: {edges.dtype} of shape {tuple(edges.shape)}. Expected whole numbers (2, E): "
            "source and target of each edge"
        )


def _check_edges(edges: Tensor, graph_of_node: Tensor) -> None:
    num_nodes = len(graph_of_node)
    if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < num_nodes):
        raise ValueError(
            f"edges: nodes {int(edges.min())} to {int(edges.max())}. Expected 0 to {num_nodes - 1}"
        )
    first, second = graph_of_node[edges]
    if (first != second).any():
        edge = int((first != second).nonzero()[0])
        raise ValueError(
            f"edges: edge {edge} joins graph {int(first[edge])} and graph {int(second[edge])}. "
            "Expected two nodes of one graph"
        )
