"""Mean negative log-probability of the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Card
from instil.metrics.bases.class_metric import ClassMetric


class NegativeLogLikelihood(ClassMetric):
    """Negative log-likelihood in nats.

    With several classes per sample it is the mean over all known entries.
    """

    card = Card(
        "Negative log-likelihood",
        use="A proper score of the probabilities: accuracy and calibration in one number.",
        pitfalls="One confident mistake can dominate the value.",
    )
    higher_is_better = False
    is_fraction = False

    def reset(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, logits: Tensor, label: Tensor) -> None:
        if label.is_floating_point():
            is_known = label != UNLABELLED
            values = F.binary_cross_entropy_with_logits(
                logits[is_known], label[is_known].to(logits.dtype), reduction="none"
            )
        else:
            values = F.cross_entropy(logits, label, reduction="none")
        self._sum += values.sum(dtype=torch.float64).item()
        self._count += values.numel()

    def compute(self) -> float:
        if not self._count:
            raise ValueError("no item to evaluate on has a label")
        return self._sum / self._count
