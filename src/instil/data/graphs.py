"""Training, validation and test nodes of one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.nodes import LABEL_PRIOR, Nodes
from instil.data.samples import Samples
from instil.data.splits import Splits, splits

POSITIONED = "x_positions"
"""Batch key of the features with the position features of each node."""
MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
"""Name of the mask of each split, as in PyTorch Geometric."""
POSITION_SEED = 0
"""Seed of the randomized decomposition, which is the same for all runs."""


def graph_splits(
    features: Tensor,
    edges: Tensor,
    label: Tensor,
    masks: Mapping[str, Tensor],
    classes: Sequence[str] | None = None,
    *,
    hops: int = 2,
    transductive: bool = True,
    positions: int = 0,
    label_prior: bool = False,
    directed: bool = False,
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
        positions: number of position features; 0 for none.
        label_prior: whether batches have the training labels, for label propagation.
        directed: False to add the reverse of each edge.
        shares: shares of the training nodes for missing validation and test nodes.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for arrays that do not fit together, and wrong values.
    """
    features = features.float()
    _check(features, edges, label, hops)
    if not directed:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
    edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    inputs: dict[str, Tensor] = {}
    if positions:
        position = position_features(edges, len(features), positions)
        inputs[POSITIONED] = torch.cat([features, position], dim=1)
    names = list(classes or _class_names(label))
    parts: dict[str, Samples] = {}
    for split, nodes in _nodes_by_split(label, masks).items():
        parts[split] = Nodes(features, edges, hops, label[nodes], names, nodes, inputs)
    divided = splits(parts, *shares)
    if len(parts) < len(MASKS):
        # Held-out nodes are numbered from 0, and their index must be that in the graph.
        divided = _with_graph_index(divided, parts)
    train = divided.train
    if label_prior:
        inputs[LABEL_PRIOR] = _label_prior(train, len(features))
        for part in (divided.train, divided.validation, divided.test):
            assert isinstance(part, Nodes)
            part.node_inputs = part.node_inputs | inputs
    if transductive:
        hidden = torch.full_like(label, UNLABELLED)
        hidden[train.index] = train.label
        train = Nodes(features, edges, hops, hidden, names, torch.arange(len(label)), inputs)
    return Splits(
        train, divided.validation, divided.test, train.classes, train.kind, _notes(edges, features)
    )


def pyg_splits(data: Any, **options: Any) -> Splits:
    """Return the nodes of a ``torch_geometric.data.Data`` by split.

    Args:
        data: object with ``x``, ``edge_index``, ``y`` and, optionally, ``train_mask``,
            ``val_mask`` and ``test_mask``, each (M,).
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
    return graph_splits(data.x, data.edge_index, data.y, masks, **options)


def position_features(edges: Tensor, num_nodes: int, count: int) -> Tensor:
    """Return position features: a truncated SVD of the normalized adjacency matrix.

    The matrix is ``D^-1/2 (A + I) D^-1/2``. The left singular vectors have root mean square 1 and
    are multiplied by their singular values.

    Args:
        edges: (2, E), source and target.
        num_nodes: number M of nodes.
        count: number of features, below M.

    Returns:
        (M, count).

    Raises:
        ValueError: if ``count`` is not below the number of nodes.
    """
    if not 0 < count < num_nodes:
        raise ValueError(
            f"positions: {count} is out of range. Expected 1 to {num_nodes - 1} for {num_nodes} "
            "nodes"
        )
    loops = torch.arange(num_nodes).expand(2, -1)
    both = torch.unique(torch.cat([edges, edges.flip(0), loops], dim=1), dim=1)
    source, target = both
    degree = source.bincount(minlength=num_nodes).float()
    values = (degree[source] * degree[target]).rsqrt()
    shape = (num_nodes, num_nodes)
    # The indices are valid by construction.
    normalized = torch.sparse_coo_tensor(both, values, shape, check_invariants=False).coalesce()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(POSITION_SEED)
        # The spectrum decays slowly; more iterations separate its largest values.
        vectors, singular, _ = torch.svd_lowrank(normalized, min(count + 10, num_nodes), niter=10)
    position: Tensor = vectors[:, :count] * singular[:count] * num_nodes**0.5
    return position


def _check(features: Tensor, edges: Tensor, label: Tensor, hops: int) -> None:
    num_nodes = len(features)
    if features.ndim != 2 or not features.isfinite().all():
        problem = "not finite" if features.ndim == 2 else f"of shape {tuple(features.shape)}"
        raise ValueError(f"features: values are {problem}. Expected finite numbers (M, F)")
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.is_floating_point():
        raise ValueError(
            f"edges: {edges.dtype} of shape {tuple(edges.shape)}. Expected whole numbers (2, E): "
            "source and target of each edge"
        )
    if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < num_nodes):
        raise ValueError(
            f"edges: nodes {int(edges.min())} to {int(edges.max())}. Expected 0 to {num_nodes - 1}"
        )
    if len(label) != num_nodes:
        raise ValueError(f"label: {len(label)} labels for {num_nodes} nodes. Expected one per node")
    if hops < 1:
        raise ValueError(f"hops: {hops} is too small. Expected at least 1")


def _class_names(label: Tensor) -> list[str]:
    count = label.shape[1] if label.ndim == 2 else int(label.max()) + 1
    return [str(index) for index in range(count)]


def _nodes_by_split(label: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Indices of the nodes of each split."""
    is_used = torch.zeros(len(label), dtype=torch.bool)
    nodes: dict[str, Tensor] = {}
    for split, mask in masks.items():
        if mask.shape != (len(label),):
            raise ValueError(
                f"{split} mask: shape {tuple(mask.shape)}. Expected ({len(label)},), one per node"
            )
        mask = mask.bool()
        if (mask & is_used).any():
            node = int((mask & is_used).nonzero()[0])
            raise ValueError(f"{split} mask: node {node} is in two splits. Expected one per node")
        is_used |= mask
        nodes[split] = mask.nonzero().flatten()
    if "train" not in nodes:
        has_label = label != UNLABELLED
        has_label = has_label if label.ndim == 1 else has_label.any(1)
        nodes["train"] = (has_label & ~is_used).nonzero().flatten()
    return nodes


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
