"""Regression of one or several real numbers from the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from instil.core import Batch, Card
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.table_rows import call, check_rows
from instil.tasks.regression import Regression


class TabularRegression(Regression):
    """Regression from rows of numbers; ``logits`` (N, D) are the predicted numbers.

    Labels are float (N, D); -100 or NaN for an unknown number.

    Args:
        kind: kind of the labels: ``real``.
    """

    card = Card("Regression of table rows", tasks=("tabular_regression",))
    title = "regression of table rows"
    names = ("features", "label")
    inputs = ("features",)
    method_tasks = ("classification", "regression")
    call = staticmethod(call)  # type: ignore[assignment]

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        check_rows(batch["features"])

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return rows (N, F)."""
        # Images would be resized by the base class.
        return ClassTask.to_batch(self, inputs, shape)
