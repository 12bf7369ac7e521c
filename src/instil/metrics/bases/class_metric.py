"""Base class of metrics of logits and class labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Outputs, to_float32
from instil.metrics.bases.metric import Metric


class ClassMetric(Metric):
    """Base class of metrics of ``logits`` (N, ..., C) and class labels.

    Labels are int64 (N, ...), or float (N, C) for several classes per sample. Items without a
    label, and items with ``valid`` False, are left out.
    """

    def __init__(self) -> None:
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        logits = to_float32(outputs["logits"].detach()).cpu()
        label: Tensor = batch["label"].detach().cpu()
        is_used = torch.ones(len(label), dtype=torch.bool)
        if "valid" in batch and batch["valid"].shape[:1] == label.shape[:1]:
            is_used = batch["valid"].cpu()
            is_used = is_used if is_used.ndim <= label.ndim else is_used[:, 0]
        if label.is_floating_point():
            self._add_items(logits[is_used].reshape(-1, logits.shape[-1]), label[is_used])
            return
        if logits.shape[:-1] != label.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} do not fit labels {tuple(label.shape)}. Expected "
                "logits (N, ..., C) and class indices (N, ...)"
            )
        is_labelled = (label != UNLABELLED) & is_used.reshape(
            *is_used.shape, *[1] * (label.ndim - is_used.ndim)
        )
        self._add_items(logits[is_labelled], label[is_labelled])

    def _add_items(self, logits: Tensor, label: Tensor) -> None:
        # torchmetrics fails on a batch in which no item counts.
        if label.numel():
            self.add(logits, label)

    @abstractmethod
    def add(self, logits: Tensor, label: Tensor) -> None:
        """Add items.

        Args:
            logits: (M, C), float32 on the CPU.
            label: class indices (M,); or float (M, C) with -100 for an unknown entry.
        """


class TorchMetric(ClassMetric):
    """Base class of metrics that torchmetrics computes."""

    def reset(self) -> None:
        self._metric: Any = None

    def add(self, logits: Tensor, label: Tensor) -> None:
        if self._metric is None:
            self._metric = self.build(logits.shape[1], label.is_floating_point())
        if not label.is_floating_point():
            self._metric.update(logits.softmax(1), label)
            return
        # torchmetrics ignores entries whose label is the ``ignore_index``.
        truth = torch.where(label == UNLABELLED, UNLABELLED, label > 0.5).long()
        self._metric.update(logits.sigmoid(), truth)

    @abstractmethod
    def build(self, num_classes: int, is_multi: bool) -> Any:
        """Build the metric of torchmetrics, which reads probabilities and class indices.

        Args:
            num_classes: number of classes.
            is_multi: whether a sample may have several classes.
        """

    def compute(self) -> float:
        return float(self.class_values())

    def class_values(self) -> Tensor:
        """Return the value of torchmetrics, one number or one for each class.

        Raises:
            ValueError: if no item has a label.
        """
        if self._metric is None or not self._metric.update_count:
            raise ValueError("no item to evaluate on has a label")
        values: Tensor = self._metric.compute()
        return values
