"""Mean difference of confidence and accuracy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Card
from instil.metrics.bases.class_metric import TorchMetric

NORMS = {"mean": "l1", "root_mean_square": "l2", "max": "max"}
"""Names of the norms, and their names in torchmetrics."""


class CalibrationError(TorchMetric):
    """Expected calibration error over bins of the confidence.

    With several classes per sample, the confidence is the probability of each class.
    """

    card = Card(
        "On Calibration of Modern Neural Networks",
        "https://arxiv.org/abs/1706.04599",
        "ICML",
        2017,
        use="Probabilities that a later decision depends on.",
        pitfalls="The value depends on the number of bins. It does not measure accuracy.",
    )
    higher_is_better = False

    def __init__(
        self,
        bins: Annotated[int, Ge(1), Doc("number of bins of equal width")] = 15,
        norm: Annotated[
            Literal["mean", "root_mean_square", "max"], Doc("summary of the errors of the bins")
        ] = "mean",
    ) -> None:
        self.bins = bins
        self.norm = norm
        super().__init__()

    def build(self, num_classes: int, is_multi: bool) -> Any:
        from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

        norm: Any = NORMS[self.norm]
        if is_multi:
            return BinaryCalibrationError(self.bins, norm, sync_on_compute=False)
        return MulticlassCalibrationError(num_classes, self.bins, norm, sync_on_compute=False)

    def add(self, logits: Tensor, label: Tensor) -> None:
        if not label.is_floating_point():
            super().add(logits, label)
            return
        if self._metric is None:
            self._metric = self.build(logits.shape[1], is_multi=True)
        # The binary metric cannot ignore entries, so that unknown ones are left out here.
        is_known = label != UNLABELLED
        self._metric.update(logits[is_known].sigmoid(), (label[is_known] > 0.5).to(torch.int64))
