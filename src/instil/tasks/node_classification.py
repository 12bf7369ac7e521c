"""Nodes of a graph to classes."""

from __future__ import annotations

import inspect

from torch import nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask


def call(model: nn.Module, batch: Batch) -> Outputs:
    """``logits`` (n, C) for the features ``x`` (n, F) and, of a model whose forward takes it, ``edge_index`` (2, E), from and to.

    A model without ``edge_index`` sees each node alone, as the student of GLNN (Zhang et al. 2022).
    """
    edges = (
        {"edge_index": batch["edge_index"]}
        if "edge_index" in inspect.signature(model.forward).parameters
        else {}
    )
    return {"logits": model(batch["x"], **edges)}


class NodeClassification(ClassTask):
    """What the loop and the command line ask of the task; ``kind`` is that of the labels: ``single``, ``multi`` or ``binary``.

    A batch is a part of the graph: ``x``, ``edge_index``, ``label`` (n,), and ``valid``, False for nodes that are only there for their neighbours.
    """

    card = Card("Node classification", tasks=("node_classification",))
    title = "node classification"
    names = ("x", "edge_index", "label")
    inputs = ("x", "edge_index")
    exports = False
    call = staticmethod(call)
