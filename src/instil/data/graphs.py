"""Training, validation and test nodes of one graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.graph_checks import check_graph, check_samples, nodes_by_split
from instil.data.graph_positions import inductive_positions
from instil.data.labels import class_index_names
from instil.data.nodes import LABEL_PRIOR, Nodes
from instil.data.samples import Samples
from instil.data.splits import HOLD_OUT_SEED, Splits, balanced_order, splits

POSITIONED = "x_positions"
"""Batch key of the features with the position features of each node."""
MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
"""Name of the mask of each split, as in PyTorch Geometric."""


def graph_splits(
    features: Tensor,
    edges: Tensor,
    label: Tensor,
    masks: Mapping[str, Tensor],
    classes: Sequence[str] | None = None,
    *,
    hops: int = 2,
    transductive: bool = True,
    inductive: float = 0.0,
    transfer_nodes: int | None = None,
    positions: int = 0,
    label_prior: bool = False,
    directed: bool = False,
    fanout: int | None = None,
    shares: tuple[float, float] = (0.15, 0.15),
) -> Splits:
    """Return the nodes of a graph by split.

    Args:
        features: (M, F), finite numbers.
        edges: (2, E), source and target.
        label: class indices (M,), -100 for none; or (M, C) for several classes per node.
        masks: (M,) booleans by split; without ``train``, all labelled nodes that are in no other
            split are training nodes.
        classes: class names; None for indices.
        hops: see ``Nodes``.
        transductive: whether the training samples include all other nodes, without their labels.
        inductive: share of the test nodes that training does not know: they, the validation nodes
            and the edges of both are not in the training samples. Only these test nodes are
            evaluated. 0: all nodes are training samples.
        transfer_nodes: number of test nodes that are training samples without a label. Other
            nodes are in training batches as neighbours only, and only these test nodes are
            evaluated. None: all.
        positions: number of position features; 0 for none.
        label_prior: whether batches have the training labels, for label propagation.
        directed: False to add the reverse of each edge.
        fanout: see ``Nodes``; for the training samples only.
        shares: shares of the training nodes for missing validation and test nodes.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for arrays that do not fit together, and wrong values.
    """
    features = features.float()
    check_graph(features, edges, label, hops)
    check_samples(transductive, inductive, transfer_nodes)
    if not directed:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
    edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    names = list(classes or class_index_names(label))
    parts: dict[str, Samples] = {}
    for split, nodes in nodes_by_split(label, masks).items():
        parts[split] = Nodes(features, edges, hops, label[nodes], names, nodes)
    divided = _divided(parts, shares)
    if transfer_nodes is not None:
        inductive = _unseen_share(transfer_nodes, divided.test)
    divided, is_sample = _with_unseen(divided, inductive, len(features))
    is_known = is_sample if transfer_nodes is None else torch.ones_like(is_sample)
    inputs = _with_positions(features, edges, is_known, positions)
    train = divided.train
    if label_prior:
        inputs[LABEL_PRIOR] = _label_prior(train, len(features))
    if transductive:
        rows = is_sample.nonzero().flatten()
        known_edges = edges[:, is_known[edges].all(0)]
        labels = _labels_of(train, label)[rows]
        train = Nodes(features, known_edges, hops, labels, names, rows)
        divided = dataclasses.replace(divided, train=train)
    _add_inputs(divided, inputs, fanout)
    return dataclasses.replace(divided, notes=_notes(edges, features))


def _add_inputs(divided: Splits, inputs: dict[str, Tensor], fanout: int | None) -> None:
    """Add inputs to the nodes of all splits, and ``fanout`` to the training nodes."""
    for part in (divided.train, divided.validation, divided.test):
        assert isinstance(part, Nodes)
        part.node_inputs = part.node_inputs | inputs
    assert isinstance(divided.train, Nodes)
    divided.train.fanout = fanout


def _unseen_share(transfer_nodes: int, test: Samples) -> float:
    """Share of the test nodes that are not training samples."""
    if not 0 <= transfer_nodes < len(test):
        raise ValueError(
            f"transfer_nodes: {transfer_nodes} is out of range. Expected 0 to {len(test) - 1} of "
            f"{len(test)} test nodes"
        )
    return 1 - transfer_nodes / len(test)


def _divided(parts: Mapping[str, Samples], shares: tuple[float, float]) -> Splits:
    divided = splits(parts, *shares)
    if len(parts) == len(MASKS):
        return divided
    # Held-out nodes are numbered from 0, and their index must be that in the graph.
    return _with_graph_index(divided, parts)


def _labels_of(train: Samples, label: Tensor) -> Tensor:
    """Labels of all nodes, without those of nodes that are not training samples."""
    hidden = train.label.new_full(label.shape, UNLABELLED)
    hidden[train.index] = train.label
    return hidden


def _with_positions(
    features: Tensor, edges: Tensor, is_known: Tensor, count: int
) -> dict[str, Tensor]:
    """Features with ``count`` position features, by batch key; nothing for 0."""
    if not count:
        return {}
    position = inductive_positions(edges, is_known, count)
    return {POSITIONED: torch.cat([features, position], dim=1)}


def _with_unseen(divided: Splits, share: float, num_nodes: int) -> tuple[Splits, Tensor]:
    """Splits whose test nodes are unseen, and a mask (M,) of the nodes that may be samples."""
    is_sample = torch.ones(num_nodes, dtype=torch.bool)
    if not share:
        return divided, is_sample
    test = _unseen_nodes(divided.test, share)
    is_sample[test.index] = False
    is_sample[divided.validation.index] = False
    return dataclasses.replace(divided, test=test), is_sample


def _unseen_nodes(test: Samples, share: float) -> Samples:
    """This share of the test nodes, with the classes in proportion."""
    order = balanced_order(test.label, HOLD_OUT_SEED, proportional=True)
    count = round(share * len(order))
    if not count:
        raise ValueError(
            f"inductive: a share of {share} of {len(order)} test nodes is less than one node. "
            "Expected a larger share"
        )
    return test.subset(order[:count].sort().values)


def pyg_splits(data: Any, **options: Any) -> Splits:
    """Return the nodes of a ``torch_geometric.data.Data`` by split.

    Args:
        data: object with ``x``, ``edge_index``, ``y`` and, optionally, ``train_mask``,
            ``val_mask`` and ``test_mask``, each (M,). ``y`` has class indices (M,) or (M, 1), or
            0 and 1 (M, C) for several classes per node.
        options: options of ``graph_splits``.

    Raises:
        ValueError: for data without features, edges or labels, and for several masks per split.
    """
    for name in ("x", "edge_index", "y"):
        if getattr(data, name, None) is None:
            raise ValueError(
                f"data.{name}: missing. Expected x, edge_index and y, as of "
                "torch_geometric.data.Data for node classification"
            )
    masks: dict[str, Tensor] = {}
    for split, name in MASKS.items():
        mask = getattr(data, name, None)
        if mask is None:
            continue
        if mask.ndim != 1:
            raise ValueError(
                f"data.{name}: several splits of shape {tuple(mask.shape)}. Expected (M,). Choose "
                f"one, such as data.{name}[:, 0]"
            )
        masks[split] = mask
    # Undirected graphs of PyTorch Geometric already have both directions of each edge.
    options.setdefault("directed", True)
    label: Tensor = data.y
    # A column of whole numbers is that of class indices in data sets of OGB.
    if label.ndim == 2 and label.shape[1] == 1 and not label.is_floating_point():
        label = label[:, 0]
    return graph_splits(data.x, data.edge_index, label, masks, **options)


def _with_graph_index(divided: Splits, parts: Mapping[str, Samples]) -> Splits:
    """Replace row numbers of held-out parts by the indices of their nodes in the graph."""
    nodes = parts["train"].index
    for part in (divided.train, divided.validation, divided.test):
        if not any(part is other for other in parts.values()):
            part.index = nodes[part.origin]
    return divided


def _label_prior(train: Samples, num_nodes: int) -> Tensor:
    if train.kind != "single":
        raise ValueError(
            f"label_prior: labels of the kind {train.kind}. Expected one class per node"
        )
    prior = torch.zeros(num_nodes, len(train.classes))
    prior[train.index[train.has_label], train.label[train.has_label]] = 1
    return prior


def _notes(edges: Tensor, features: Tensor) -> tuple[str, ...]:
    has_edge = torch.zeros(len(features), dtype=torch.bool)
    has_edge[edges.flatten()] = True
    count = int((~has_edge).sum())
    if not count:
        return ()
    return (f"{count} of {len(features)} nodes have no edge; only their own features count",)
