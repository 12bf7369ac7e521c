"""Classification of the nodes of a graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask

ROLES = ("logits", "features", "embedding", "structure")
"""Outputs by name that are used."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the logits of nodes.

    A model without the parameter ``edge_index`` classifies each node by its own features, like the
    student of GLNN (Zhang et al. 2022).

    Args:
        model: a model that maps ``x``, and optionally ``edge_index``, to logits, or to outputs by
            name.
        batch: features ``x`` (n, F) and ``edge_index`` (2, E), from and to. A model with the
            parameters ``index`` and ``label_prior`` gets these entries too.

    Returns:
        ``logits`` (n, C). A model that returns ``features``, ``embedding`` or ``structure`` by name
        has these roles too.

    Raises:
        ValueError: if the model reads ``label_prior`` and the batch lacks it.
    """
    parameters = inspect.signature(model.forward).parameters
    arguments: dict[str, Tensor] = {}
    for key in ("edge_index", "index", "label_prior"):
        is_optional = key != "edge_index" and key not in batch
        if key in parameters and not is_optional:
            arguments[key] = batch[key]
    if "label_prior" in parameters and "label_prior" not in batch:
        raise ValueError(
            f"{type(model).__name__} reads training labels of other nodes, which the batch lacks. "
            "Set data.label_prior: true (source graph_npz)"
        )
    result = model(batch["x"], **arguments)
    if isinstance(result, Mapping):
        return {role: result[role] for role in ROLES if role in result}
    return {"logits": result}


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
