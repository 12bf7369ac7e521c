"""Images to one class a pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import check_images, preprocess


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """``logits`` (N, H, W, C) for ``image`` (N, C, H, W) in [0, 1], resized and normalised as this model expects it.

    The model gives logits (N, C, h, w), as a tensor, under ``out`` (torchvision) or as ``logits`` (transformers); they are brought to the image's
    own height and width (bilinear).
    """
    image: Tensor = batch["image"]
    answer = model(preprocess(image, size, mean, std))
    if isinstance(answer, Mapping):
        answer = answer["out"] if "out" in answer else answer["logits"]
    logits: Tensor = answer[0] if isinstance(answer, (tuple, list)) else answer
    if logits.shape[-2:] != image.shape[-2:]:
        logits = F.interpolate(logits, image.shape[-2:], mode="bilinear")
    return {"logits": logits.movedim(1, -1)}


class Segmentation(Task):
    """What the loop and the command line ask of the task.

    Labels are int64 (N, H, W), -100 where there is none; ``valid`` (N, H, W) is False for void pixels, that nothing learns from.
    """

    card = Card("Semantic segmentation", tasks=("segmentation",))
    title = "segmentation"
    names = ("image", "label", "valid")
    inputs = ("image",)
    headline = "miou"
    call = staticmethod(call)
    aliases: ClassVar = {"pixel_values": "image", "labels": "label", "mask": "label"}
    label_hint = "If 255 marks void pixels, add a boolean 'valid' (N, H, W) that is False there"

    def adapt_batch(self, batch: Batch) -> Batch:
        """Adds ``valid``, by default True for every pixel; a mask may be (N, 1, H, W)."""
        adapted = super().adapt_batch(batch)
        label = adapted.get("label")
        if label is not None and label.ndim == 4 and label.shape[1] == 1:
            adapted["label"] = label = label.squeeze(1)
        if label is not None and "valid" not in adapted:
            adapted["valid"] = torch.ones_like(label, dtype=torch.bool)
        return adapted

    def to_batch(self, given: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Images (N, C, H, W): uint8, or float in [0, 1]; of any size that the student takes."""
        batch = super().to_batch(given, shape)
        return batch | {"image": check_images(batch["image"], shape[0])}

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if batch["label"].ndim != 3 or "valid" not in batch:
            raise ValueError(
                f"segmentation needs a label and valid (N, H, W) for each pixel; the label has the shape {tuple(batch['label'].shape)}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """``miou`` (mean over the classes seen of intersection over union), ``accuracy`` and ``loss`` of the labelled pixels, and ``agreement``.

        Details: ``confusion`` of pixels (true class x predicted class). Raises ValueError where no pixel is labelled or a logit is not finite.
        """
        from torchmetrics.classification import MulticlassJaccardIndex

        overlap: MulticlassJaccardIndex | None = None
        loss, alike = 0.0, torch.zeros(2, dtype=torch.float64)
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            logits, label = to_float32(mine["logits"]), batch["label"]
            valid = batch.get("valid", torch.ones_like(label, dtype=torch.bool))
            if not logits.isfinite().all():
                raise ValueError(
                    f"{int((~logits.isfinite()).any(-1).sum())} of {logits[..., 0].numel()} pixels have logits that are not finite"
                )
            label, predicted = label.masked_fill(~valid, UNLABELLED), logits.argmax(-1)
            overlap = overlap or MulticlassJaccardIndex(logits.shape[-1], ignore_index=UNLABELLED)
            overlap.update(predicted.cpu(), label.cpu())
            loss += F.cross_entropy(logits.movedim(-1, 1), label, reduction="sum").item()
            if teacher is not None:
                alike += torch.stack(
                    [((predicted == theirs["logits"].argmax(-1)) & valid).sum(), valid.sum()]
                ).cpu()
        confusion = torch.zeros(1, 1) if overlap is None else overlap.confmat
        count = int(confusion.sum())
        if overlap is None or not count:
            raise ValueError("no pixel to evaluate on has a label")
        metrics = {
            "miou": overlap.compute().item(),
            "accuracy": int(confusion.diag().sum()) / count,
            "loss": loss / count,
        }
        if teacher is not None:
            metrics["agreement"] = float(alike[0] / alike[1].clamp_min(1))
        return metrics, {"confusion": confusion.tolist()}
