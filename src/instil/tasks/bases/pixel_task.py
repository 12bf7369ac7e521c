"""Base class of tasks with a label for every pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Outputs
from instil.data.samples import Samples
from instil.tasks.bases.checks import check_has_label
from instil.tasks.bases.task import Task
from instil.tasks.classification import check_images


class PixelTask(Task):
    """Base class of tasks with ``image`` (N, C, H, W), ``label`` and ``valid`` (N, H, W)."""

    names = ("image", "label", "valid")
    inputs = ("image",)
    decision_roles = ("prediction",)
    aliases: ClassVar = {"pixel_values": "image", "labels": "label", "mask": "label"}

    def adapt_batch(self, batch: Batch) -> Batch:
        """Add ``valid``, by default True for every pixel, and accept labels (N, 1, H, W)."""
        adapted = super().adapt_batch(batch)
        label = adapted.get("label")
        if label is not None and label.ndim == 4 and label.shape[1] == 1:
            label = label.squeeze(1)
            adapted["label"] = label
        if label is not None and "valid" not in adapted:
            adapted["valid"] = torch.ones_like(label, dtype=torch.bool)
        return adapted

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], of any size."""
        batch = super().to_batch(inputs, shape)
        return batch | {"image": check_images(batch["image"], shape[0])}

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if batch["label"].ndim != 3 or "valid" not in batch:
            raise ValueError(
                f"{self.title} needs a label and valid (N, H, W) for each pixel; the label has the "
                f"shape {tuple(batch['label'].shape)}"
            )

    def check_evaluated(self, samples: Samples, name: str) -> None:
        check_has_label(samples, name)

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Return the teacher's prediction for each unlabelled pixel, else the label.

        Args:
            outputs: result of ``decisions``.
            label: (N, H, W), -100 for no label.
        """
        return torch.where(label == UNLABELLED, outputs["prediction"].to(label), label)
