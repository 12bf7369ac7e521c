"""Classification of whole graphs."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the logits of graphs.

    Args:
        model: a model with the parameter ``adjacency``, which maps padded graphs ``x``,
            ``adjacency`` and ``node_mask`` to logits; or one with the parameter ``batch``, as in
            PyTorch Geometric, which maps the joined graphs ``x``, ``edge_index`` and ``batch``.
        batch: padded features ``x`` (N, K, F), ``adjacency`` (N, K, K) and ``node_mask`` (N, K).

    Returns:
        ``logits`` (N, C).

    Raises:
        ValueError: for a model without these parameters.
    """
    parameters = inspect.signature(model.forward).parameters
    if "adjacency" in parameters:
        return {"logits": model(batch["x"], batch["adjacency"], batch["node_mask"])}
    if "batch" in parameters:
        x, edge_index, graph = joined(batch)
        return {"logits": model(x, edge_index, batch=graph)}
    raise ValueError(
        f"{type(model).__name__}: forward has the parameters {', '.join(parameters)}. Expected "
        "(x, adjacency, node_mask) or (x, edge_index, batch)"
    )


def joined(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return padded graphs as one graph without padding.

    Args:
        batch: ``x`` (N, K, F), ``adjacency`` (N, K, K) and ``node_mask`` (N, K).

    Returns:
        Features (n, F), edges (2, E) from source to target, and the graph (n,) of each node.
    """
    node_mask: Tensor = batch["node_mask"]
    node = torch.cumsum(node_mask.flatten(), 0).view_as(node_mask) - 1
    graph, target, source = batch["adjacency"].nonzero().T
    edge_index = torch.stack([node[graph, source], node[graph, target]])
    return batch["x"][node_mask], edge_index, node_mask.nonzero()[:, 0]


class GraphClassification(ClassTask):
    """Classification of graphs.

    A batch has padded graphs: ``x``, ``adjacency``, ``node_mask`` and ``label`` (N,) or (N, C).

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Graph classification", tasks=("graph_classification",))
    title = "graph classification"
    names = ("x", "adjacency", "node_mask", "label")
    inputs = ("x", "adjacency", "node_mask")
    exports = False
    call = staticmethod(call)
