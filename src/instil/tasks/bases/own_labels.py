"""Labels for models that compute their loss themselves."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from instil.core import Batch

LABEL_PARAMETERS = ("labels", "targets")
"""Parameters by which a model receives labels: those of transformers, and of torchvision."""


def label_parameter(model: nn.Module) -> str:
    """Return the parameter of a model that receives labels; empty if it has none.

    Args:
        model: the model.

    Example:
        >>> label_parameter(nn.Linear(1, 1))
        ''
    """
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in LABEL_PARAMETERS if name in parameters), "")


def label_arguments(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """Return the labels as an argument of a model in train mode; empty in eval mode.

    Args:
        model: the model.
        batch: the batch, with or without ``label``.
    """
    takes_labels = label_parameter(model) == "labels"
    if not (takes_labels and model.training and "label" in batch):
        return {}
    return {"labels": batch["label"]}
