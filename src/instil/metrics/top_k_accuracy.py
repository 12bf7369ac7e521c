"""Share of the items whose class is among the k largest logits."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Card
from instil.metrics.bases.class_metric import ClassMetric


class TopKAccuracy(ClassMetric):
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

    def reset(self) -> None:
        self._hits = 0
        self._count = 0

    def add(self, logits: Tensor, label: Tensor) -> None:
        num_classes = logits.shape[1]
        if self.k >= num_classes:
            raise ValueError(
                f"k: {self.k} is too large. Expected less than the {num_classes} classes"
            )
        # Logits and not probabilities, of which the small ones are all 0 in float32.
        is_hit = logits.topk(self.k).indices == label[:, None]
        self._hits += int(is_hit.sum())
        self._count += len(label)

    def compute(self) -> float:
        if not self._count:
            raise ValueError("no item to evaluate on has a label")
        return self._hits / self._count
