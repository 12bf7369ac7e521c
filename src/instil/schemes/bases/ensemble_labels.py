"""Weights of the labelled samples in the label loss of an ensemble."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Average, Batch, item_weights

EnsembleAverage = Annotated[
    Average, Doc("items that the ensemble's label loss is divided by: all, or the labelled")
]


def labelled_weights(batch: Batch, method: str) -> Tensor:
    """Return the weight of each sample (N,) in the label loss of an ensemble; 0 without a label.

    Args:
        batch: batch with ``label`` (N,).
        method: name of the scheme, for the error.

    Raises:
        ValueError: if the batch has no ``label``.
    """
    if "label" not in batch:
        raise ValueError(
            f"scheme: the ensemble of {method} is trained on labels. Expected 'label' in the batch,"
            f" got {', '.join(batch)}. Add labels, or use scheme mutual"
        )
    weights: Tensor = item_weights(batch) * (batch["label"] != UNLABELLED)
    return weights


def num_items(batch: Batch, labelled: Tensor, average: Average) -> Tensor:
    """Return the number of items that the label loss of an ensemble is divided by.

    Args:
        batch: the batch of a step.
        labelled: result of ``labelled_weights``.
        average: ``"batch"`` for all items, ``"labelled"`` for those with a label.
    """
    return (item_weights(batch) if average == "batch" else labelled).sum()
