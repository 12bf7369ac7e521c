"""Source ``digit_graph``: a nearest-neighbour graph of handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch
from instil.data.samples import Facts, Rows, Samples
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


class Nodes(Samples):
    """Labelled nodes of a graph; a batch is the subgraph around the requested rows.

    A batch contains the requested nodes first, then all nodes from which they are reached in
    ``hops`` edges: ``x`` (n, F), ``edge_index`` (2, e) with the edges among them, and ``valid``,
    False for the added neighbours. The output of a network of ``hops`` layers for a node does not
    depend on the batch.

    Args:
        features: (M, F), of all nodes of the graph.
        edges: (2, E), source and target of all edges of the graph.
        hops: number of edges up to which neighbours are added.
        label: (N,), of the nodes of this data set.
        classes: class names.
        index: (N,), indices of these nodes in the graph.
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
    ):
        self.features = features
        self.edges = edges
        self.hops = hops
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), "features": self.features.shape[1]}

    def inputs(self, rows: Tensor) -> Batch:
        """Return the features of these nodes, without edges."""
        return {"x": self.features[self.index[rows]]}

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
        nodes = self._with_neighbours(requested)
        position = torch.full((len(self.features),), -1)
        position[nodes] = torch.arange(len(nodes))
        edges = position[self.edges]
        num_added = len(nodes) - len(requested)
        no_label = torch.full(
            (num_added, *self.label.shape[1:]), UNLABELLED, dtype=self.label.dtype
        )
        return {
            "x": self.features[nodes],
            "edge_index": edges[:, (edges >= 0).all(0)],
            "label": torch.cat([self.label[rows], no_label]),
            "index": nodes,
            "view": torch.zeros(len(nodes), dtype=torch.int64),
            "valid": torch.arange(len(nodes)) < len(requested),
        }

    def _with_neighbours(self, requested: Tensor) -> Tensor:
        """The requested nodes, then those within ``hops`` edges."""
        source, target = self.edges
        is_near = torch.zeros(len(self.features), dtype=torch.bool)
        is_near[requested] = True
        for _ in range(self.hops):
            is_near[source[is_near[target]]] = True
        is_near[requested] = False
        return torch.cat([requested, is_near.nonzero().flatten()])


def digit_graph(
    neighbours: Annotated[
        int, Doc("number of nearest digits to which each digit is connected, 1 to 99")
    ] = 5,
    hops: Annotated[
        int,
        Doc("distance in edges of the neighbours in a batch; at least the layers of the network"),
    ] = 2,
) -> Splits:
    """Graph of 1,797 digits, each connected both ways to its nearest in Euclidean distance.

    Features are the pixels. All splits are nodes of one graph, labelled only in their own split
    (the transductive setting of Kipf & Welling 2017).

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if ``neighbours`` is not in 1 to 99 or ``hops`` is below 1.
    """
    if not 1 <= neighbours < 100:
        raise ValueError(f"neighbours: {neighbours} is out of range. Expected 1 to 99")
    if hops < 1:
        raise ValueError(f"hops: {hops} is too small. Expected at least 1")
    parts = digit_parts()
    features = torch.cat([part.image.flatten(1) for part in parts])
    edges = _nearest(features, neighbours)
    starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    train, validation, test = (
        Nodes(features, edges, hops, part.label, part.classes, torch.arange(len(part)) + start)
        for part, start in zip(parts, starts[:-1], strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _nearest(features: Tensor, neighbours: int) -> Tensor:
    """Edges (2, E) in both directions, without duplicates and loops."""
    # In double precision ties between neighbours are resolved equally on every machine.
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    near = distance.topk(neighbours, largest=False).indices
    joined = torch.zeros(len(features), len(features), dtype=torch.bool).scatter_(1, near, True)
    return (joined | joined.T).nonzero().T.contiguous()
