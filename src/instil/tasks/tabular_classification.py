"""Classification of the rows of a table: one class, several classes or yes and no."""

from __future__ import annotations

from typing import ClassVar

from instil.core import Batch, Card
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.table_rows import call, check_rows


class TabularClassification(ClassTask):
    """Classification of rows of numbers.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Classification of table rows", tasks=("tabular_classification",))
    title = "classification of table rows"
    names: ClassVar[tuple[str, ...]] = ("features", "label")
    inputs: ClassVar[tuple[str, ...]] = ("features",)
    call = staticmethod(call)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        check_rows(batch["features"])
