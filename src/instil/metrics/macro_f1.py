"""Mean of the F1 scores of all classes."""

from __future__ import annotations

from typing import Any

from instil.core import UNLABELLED, Card
from instil.metrics.bases.class_metric import TorchMetric


class MacroF1(TorchMetric):
    """Macro-averaged F1 score.

    A class that neither the labels nor the predictions contain is left out of the mean.
    """

    card = Card(
        "Macro F1",
        labels=("single", "multi"),
        use="Classes of different sizes that count equally.",
        pitfalls="A class with few test samples makes the value noisy.",
    )

    def build(self, num_classes: int, is_multi: bool) -> Any:
        from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score

        if is_multi:
            return MultilabelF1Score(
                num_classes, average="none", ignore_index=UNLABELLED, sync_on_compute=False
            )
        return MulticlassF1Score(num_classes, average="macro", sync_on_compute=False)

    def compute(self) -> float:
        # torchmetrics leaves out absent classes only if an item has one class.
        values = self.class_values()
        if values.ndim == 0:
            return float(values)
        is_present = self._metric.tp + self._metric.fp + self._metric.fn > 0
        return float(values[is_present].sum() / is_present.sum().clamp_min(1))
