"""A graph of handwritten digits: each is joined to those that look most like it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.samples import Facts, Rows, Samples
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


class Nodes(Samples):
    """Some nodes of a graph; a batch is the part of the graph around the rows that are asked for.

    ``features`` (M, F) and ``edges`` (2, E), from and to, are of the whole graph; ``index`` says which of its nodes the rows are. A batch has first
    these rows, then all nodes from which they are reached in ``hops`` edges: ``x`` (n, F), ``edge_index`` (2, e) with the edges among them,
    and ``valid``, False for the nodes that are only there for the others. What a net of ``hops`` layers says of a node does not depend on the batch.
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
        self.features, self.edges, self.hops = features, edges, hops
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        return {"classes": len(self.classes), "features": self.features.shape[1]}

    def inputs(self, rows: Tensor) -> Batch:
        """Without edges: the features of these nodes."""
        return {"x": self.features[self.index[rows]]}

    def _take(self, rows: Tensor) -> None:
        """The graph stays whole."""

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Small clusters of neighbours one after the other, so that a batch has edges among its own rows (Cluster-GCN, Chiang et al. 2019)."""
        place = torch.full((len(self.features),), -1)
        place[self.index] = torch.arange(len(self))
        source, target = place[self.edges]
        among = (source >= 0) & (target >= 0)
        near: list[list[int]] = [[] for _ in range(len(self))]
        for one, other in zip(source[among].tolist(), target[among].tolist(), strict=True):
            near[other].append(one)
        order: dict[int, None] = {}
        for row in torch.randperm(len(self), generator=generator).tolist():
            if row not in order:
                order.update(
                    dict.fromkeys([row, *near[row]])
                )  # what stands there already keeps its place
        return torch.tensor(list(order))

    def __getitems__(self, rows: Rows) -> Batch:
        rows = torch.as_tensor(rows, dtype=torch.int64)
        asked, (source, target) = self.index[rows], self.edges
        near = torch.zeros(len(self.features), dtype=torch.bool)
        near[asked] = True
        for _ in range(self.hops):
            near[source[near[target]]] = True
        near[asked] = False
        nodes = torch.cat([asked, near.nonzero().flatten()])
        place = torch.full((len(self.features),), -1)
        place[nodes] = torch.arange(len(nodes))
        edges = place[self.edges]
        around = len(nodes) - len(asked)
        return {
            "x": self.features[nodes],
            "edge_index": edges[:, (edges >= 0).all(0)],
            "label": torch.cat(
                [
                    self.label[rows],
                    torch.full((around, *self.label.shape[1:]), UNLABELLED, dtype=self.label.dtype),
                ]
            ),
            "index": nodes,
            "view": torch.zeros(len(nodes), dtype=torch.int64),
            "valid": torch.arange(len(nodes)) < len(asked),
        }


def digit_graph(neighbours: int = 5, hops: int = 2) -> Splits:
    """1,797 nodes with the pixels as features, each joined both ways to the ``neighbours`` nearest in Euclidean distance.

    All splits are nodes of one graph, labelled only for their own split (the transductive setting of Kipf & Welling 2017). A batch has what a net of
    ``hops`` layers needs. Raises ValueError for no neighbours or no hops.
    """
    if not 1 <= neighbours < 100 or hops < 1:
        raise ValueError(
            f"neighbours must be 1 to 99 and hops at least 1, not {neighbours} and {hops}"
        )
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
    """Edges (2, E), both ways and once each, without loops; in double precision, so that ties fall alike everywhere."""
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    near = distance.topk(neighbours, largest=False).indices
    joined = torch.zeros(len(features), len(features), dtype=torch.bool).scatter_(1, near, True)
    return (joined | joined.T).nonzero().T.contiguous()
