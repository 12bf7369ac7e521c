"""Share of the items whose class is among the k largest logits."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge
from typing_extensions import Doc

from instil.core import Card
from instil.metrics.bases.class_metric import TorchMetric


class TopKAccuracy(TorchMetric):
    """Top-k accuracy."""

    card = Card(
        "Top-k accuracy",
        labels=("single",),
        use="Data with many or similar classes, such as ImageNet.",
        pitfalls="With k close to the number of classes every network is good.",
    )

    def __init__(self, k: Annotated[int, Ge(1), Doc("number of largest logits")] = 5) -> None:
        self.k = k
        super().__init__()

    def build(self, num_classes: int, is_multi: bool) -> Any:
        from torchmetrics.classification import MulticlassAccuracy

        if self.k >= num_classes:
            raise ValueError(
                f"k: {self.k} is too large. Expected less than the {num_classes} classes"
            )
        return MulticlassAccuracy(num_classes, self.k, average="micro", sync_on_compute=False)
