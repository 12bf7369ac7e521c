"""Classification of the rows of a table."""

from __future__ import annotations

from typing import Any

from torch import nn

from instil import Card
from instil.core import Batch, Outputs
from instil.tasks.bases.classes import ClassTask


def call(model: nn.Module, batch: Batch, roles: Any = None) -> Outputs:
    """Outputs of a network for tables: ``logits`` (N, C)."""
    return {"logits": model(batch["features"])}


class TableClassification(ClassTask):
    """One class for each row of a table; ``features`` (N, F)."""

    card = Card("Table classification", tasks=("table_classification",))
    title = "table classification"
    names = ("features", "label")
    inputs = ("features",)
    call = staticmethod(call)


def perceptron(features: int, classes: int, width: int = 32) -> nn.Module:
    """Build a network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )
