"""Checks of the arrays of a graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from instil.core import UNLABELLED


def check_graph(features: Tensor, edges: Tensor, label: Tensor, hops: int) -> None:
    """Check that the arrays of a graph fit together.

    Args:
        features: (M, F).
        edges: (2, E), source and target.
        label: (M,) or (M, C).
        hops: number of edges up to which neighbours are added to a batch.

    Raises:
        ValueError: otherwise.
    """
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


def check_samples(transductive: bool, inductive: float, transfer_nodes: int | None) -> None:
    """Check the options that choose the training samples.

    Args:
        transductive: see ``graph_splits``.
        inductive: see ``graph_splits``.
        transfer_nodes: see ``graph_splits``.

    Raises:
        ValueError: for a share outside [0, 1], and for options that exclude each other.
    """
    if not 0 <= inductive <= 1:
        raise ValueError(f"inductive: {inductive} is out of range. Expected 0 to 1")
    chosen = [] if transductive else ["transductive"]
    chosen += ["inductive"] if inductive else []
    chosen += [] if transfer_nodes is None else ["transfer_nodes"]
    if len(chosen) > 1:
        raise ValueError(
            f"{chosen[1]}: {' and '.join(chosen)} each choose the training samples. Expected one "
            "of them. Leave the others out"
        )


def nodes_by_split(label: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the indices of the nodes of each split.

    Args:
        label: (M,) or (M, C), -100 for none.
        masks: (M,) booleans by split; without ``train``, all labelled nodes that are in no other
            split are training nodes.

    Raises:
        ValueError: for a mask of another length, and a node in two splits.
    """
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
