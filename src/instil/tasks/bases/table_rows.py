"""Call of networks that read rows of numbers."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.tasks.bases.main_output import outputs_by_role

ROLES = ("logits", "embedding", "loss")
"""Outputs by name that are used."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the outputs of a model of table rows.

    Args:
        model: a model that maps rows to logits, as a tensor or by name.
        batch: ``features`` (N, F).

    Returns:
        ``logits`` (N, C). A model that returns ``embedding`` or ``loss`` by name has these roles
        too.
    """
    result = model(batch["features"])
    return outputs_by_role(result, ROLES)


def check_rows(features: Tensor) -> None:
    """Check rows of a table.

    Args:
        features: (N, F).

    Raises:
        ValueError: for another shape or type, and values that are not finite.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features: wrong form of table rows. Expected real numbers (N, F), got "
            f"{features.dtype} {tuple(features.shape)}"
        )
    if not features.isfinite().all():
        row, column = features.isfinite().logical_not().nonzero()[0].tolist()
        raise ValueError(
            f"features: row {row}, column {column} is not finite. Expected finite numbers. Use "
            "the source table, which replaces missing values"
        )
