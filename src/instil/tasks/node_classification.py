"""Classification of the nodes of a graph."""

from __future__ import annotations

import inspect

from torch import nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the logits of nodes.

    A model without the parameter ``edge_index`` classifies each node by its own features, like the
    student of GLNN (Zhang et al. 2022).

    Args:
        model: a model that maps ``x``, and optionally ``edge_index``, to logits.
        batch: features ``x`` (n, F) and ``edge_index`` (2, E), from and to.

    Returns:
        ``logits`` (n, C).
    """
    if "edge_index" in inspect.signature(model.forward).parameters:
        return {"logits": model(batch["x"], edge_index=batch["edge_index"])}
    return {"logits": model(batch["x"])}


class NodeClassification(ClassTask):
    """Classification of nodes.

    A batch is a part of the graph: ``x``, ``edge_index``, ``label`` (n,), and ``valid``, which is
    False for nodes that are in the batch as neighbours only.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Node classification", tasks=("node_classification",))
    title = "node classification"
    names = ("x", "edge_index", "label")
    inputs = ("x", "edge_index")
    exports = False
    call = staticmethod(call)
