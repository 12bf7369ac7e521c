"""Training, validation and test edges of one graph, for link prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.graph_checks import check_graph
from instil.data.link_candidates import Neighbours
from instil.data.link_pairs import SPLITS, distinct_pairs, pairs_by_split, random_split
from instil.data.link_samples import Links
from instil.data.nodes import Nodes
from instil.data.splits import HOLD_OUT_SEED, Splits


@dataclass(frozen=True)
class Candidates:
    """Numbers of the candidates of training samples, and parts of the training edges.

    Attributes are those of ``link_splits``.
    """

    negatives: int
    nearby: int
    walk_length: int
    parts: int
    all_anchors: bool

    def __post_init__(self) -> None:
        smallest = {"negatives": 1, "nearby": 0, "walk_length": 1, "parts": 2}
        for name, least in smallest.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: {value} is too small. Expected at least {least}")


def link_splits(
    features: Tensor,
    edges: Tensor,
    split: Tensor | None = None,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    hops: int = 2,
    fanout: int | None = None,
    negatives: int = 6,
    nearby: int = 6,
    walk_length: int = 2,
    eval_negatives: int = 100,
    parts: int = 4,
    all_anchors: bool = True,
) -> Splits:
    """Divide the edges of a graph into training, validation and test edges.

    Each edge is two samples, one from each end. Networks read training edges only: in training
    those of other parts than the sample's, in evaluation all of them. The draws have one seed, so
    every run has the same splits and the same negative pairs.

    Args:
        features: (M, F), finite numbers.
        edges: (2, E), undirected: each edge once, or in both directions.
        split: (E,), 0 for training, 1 for validation and 2 for test; None for a random split.
        validation: share of the edges for validation, for a random split.
        test: share of the edges for the test, for a random split.
        hops: see ``Nodes``.
        fanout: see ``Nodes``; for the training samples only.
        negatives: number of random nodes without an edge to the anchor, for each training sample.
        nearby: number of nodes of random walks, without a label, for each training sample.
        walk_length: number of steps of a random walk.
        eval_negatives: number of negatives for each validation and test edge.
        parts: number of parts of the training edges. Networks do not read the edges of a part
            for the samples of this part.
        all_anchors: whether nodes without a training edge are samples without labels.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for arrays that do not fit together, loops, too few edges, a node that is
            joined to all others, and wrong values.
    """
    features = features.float()
    num_nodes = len(features)
    check_graph(features, edges, features, hops)
    options = Candidates(negatives, nearby, walk_length, parts, all_anchors)
    if eval_negatives < 1:
        raise ValueError(f"eval_negatives: {eval_negatives} is too small. Expected at least 1")
    pairs, split = distinct_pairs(edges, split)
    generator = torch.Generator().manual_seed(HOLD_OUT_SEED)
    if split is None:
        split = random_split(pairs.shape[1], validation, test, generator)
    train_pairs, held_out, final = pairs_by_split(pairs, split)
    if train_pairs.shape[1] < parts:
        raise ValueError(
            f"parts: {parts} is too large. Expected at most the number of training edges, "
            f"{train_pairs.shape[1]}"
        )
    train = _training_links(train_pairs, features, hops, fanout, options, generator)
    graph = _graph(features, train_pairs, hops)
    everything = Neighbours(pairs, num_nodes)
    validation_links, test_links = (
        _evaluation_links(graph, group, everything, eval_negatives, generator)
        for group in (held_out, final)
    )
    notes = _notes(train_pairs, num_nodes)
    return Splits(train, validation_links, test_links, train.classes, train.kind, notes)


def pyg_links(data: Any, **options: Any) -> Splits:
    """Divide the edges of a ``torch_geometric.data.Data``.

    Args:
        data: one ``Data`` with ``x`` and ``edge_index``, which is divided at random; or the three
            of ``torch_geometric.transforms.RandomLinkSplit``, whose positive ``edge_label_index``
            are the edges of each split. Negative pairs are drawn again.
        options: options of ``link_splits``.

    Raises:
        ValueError: for data without features or edges.
    """
    graphs = list(data) if isinstance(data, (tuple, list)) else [data]
    if len(graphs) not in (1, len(SPLITS)):
        raise ValueError(
            f"data: {len(graphs)} graphs. Expected one, or train, validation and test as of "
            "torch_geometric.transforms.RandomLinkSplit"
        )
    names = ("x", "edge_index", "edge_label_index")[: len(graphs) + 1]
    for graph in graphs:
        for name in names:
            if getattr(graph, name, None) is None:
                raise ValueError(f"data.{name}: missing. Expected {', '.join(names)}")
    first = graphs[0]
    if len(graphs) == 1:
        return link_splits(first.x, first.edge_index, **options)
    # With disjoint_train_ratio the supervised training edges pass no messages.
    groups = [torch.cat([first.edge_index, _positive_pairs(first)], 1)]
    groups += [_positive_pairs(graph) for graph in graphs[1:]]
    split = torch.cat([torch.full((group.shape[1],), i) for i, group in enumerate(groups)])
    return link_splits(first.x, torch.cat(groups, 1), split, **options)


def _positive_pairs(graph: Any) -> Tensor:
    """Supervised edges (2, E) of a ``Data`` without its negative ones."""
    label = getattr(graph, "edge_label", None)
    pairs: Tensor = graph.edge_label_index
    return pairs if label is None else pairs[:, label > 0]


def _graph(features: Tensor, pairs: Tensor, hops: int, fanout: int | None = None) -> Nodes:
    """All nodes, with these edges in both directions."""
    num_nodes = len(features)
    edges = torch.cat([pairs, pairs.flip(0)], 1)
    no_label = torch.full((num_nodes,), UNLABELLED)
    graph = Nodes(features, edges, hops, no_label, (), torch.arange(num_nodes))
    graph.fanout = fanout
    return graph


def _training_links(
    pairs: Tensor,
    features: Tensor,
    hops: int,
    fanout: int | None,
    options: Candidates,
    generator: torch.Generator,
) -> Links:
    """Samples of both ends of each pair, and of nodes without one."""
    neighbours = Neighbours(pairs, len(features))
    part_of_pair = torch.randperm(pairs.shape[1], generator=generator) % options.parts
    anchor = pairs.flatten()
    partner = pairs.flip(0).flatten()
    part = part_of_pair.repeat(2)
    num_labelled = len(anchor)
    if options.all_anchors:
        lonely = (neighbours.degree == 0).nonzero().flatten()
        anchor = torch.cat([anchor, lonely])
        partner = torch.cat([partner, neighbours.other_nodes(lonely, 1, generator)[:, 0]])
        drawn_part = torch.randint(0, options.parts, (len(lonely),), generator=generator)
        part = torch.cat([part, drawn_part])
    drawn = neighbours.negatives(anchor, options.negatives, generator)
    visited = neighbours.walk(anchor, options.walk_length, options.nearby, generator)
    candidates = torch.cat([partner[:, None], drawn, visited], 1)
    label = torch.full(candidates.shape, float(UNLABELLED))
    label[:num_labelled, 0] = 1
    label[:num_labelled, 1 : 1 + options.negatives] = 0
    graphs = [
        _graph(features, pairs[:, part_of_pair != index], hops, fanout)
        for index in range(options.parts)
    ]
    return Links(torch.cat([anchor[:, None], candidates], 1), label, graphs, part)


def _evaluation_links(
    graph: Nodes, pairs: Tensor, neighbours: Neighbours, count: int, generator: torch.Generator
) -> Links:
    """Samples of both ends of each pair, with negatives that have no edge in any split."""
    anchor = pairs.flatten()
    partner = pairs.flip(0).flatten()
    drawn = neighbours.negatives(anchor, count, generator)
    label = torch.zeros(len(anchor), 1 + count)
    label[:, 0] = 1
    pair_index = torch.cat([anchor[:, None], partner[:, None], drawn], 1)
    return Links(pair_index, label, [graph], torch.zeros_like(anchor))


def _notes(pairs: Tensor, num_nodes: int) -> tuple[str, ...]:
    count = num_nodes - len(torch.unique(pairs))
    if not count:
        return ()
    return (f"{count} of {num_nodes} nodes have no training edge; only their own features count",)
