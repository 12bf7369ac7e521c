"""Detection of one object per image: its class and its box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.data.augmentation import BoxAugmentation
from instil.tasks.bases.scores import scores
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import preprocess, resized_images

IOU_THRESHOLD = 0.5
"""Smallest intersection over union of a box that counts as found."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of a detector.

    Args:
        model: a model that returns logits and box logits, by these names or in this order.
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``logits`` (N, C) and ``box_logits`` (N, 4 * bins).
    """
    result = model(preprocess(batch["image"], size, mean, std))
    if isinstance(result, Mapping):
        return {"logits": result["logits"], "box_logits": result["box_logits"]}
    logits, box_logits = result
    return {"logits": logits, "box_logits": box_logits}


class Detection(Task):
    """Detection of one object per image.

    ``label`` is int64 (N,), -100 for no label. ``box`` (N, 4) is the left, top, right and bottom
    edge in bins, -100 if it is unknown.

    Args:
        kind: kind of the labels: ``single``.
    """

    card = Card("Detection of one object", tasks=("detection",))
    title = "detection"
    names = ("image", "box", "label")
    inputs = ("image",)
    roles = ("logits", "box_logits")
    label_objectives = ("cross_entropy", "distribution_focal")
    headline = "iou"
    augmentation = BoxAugmentation
    call = staticmethod(call)

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], in the size of training."""
        return resized_images(super().to_batch(inputs, shape), shape)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        label = batch["label"]
        if label.ndim != 1 or "box" not in batch or batch["box"].shape != (len(label), 4):
            raise ValueError(
                f"detection needs a label (N,) and a box (N, 4); this batch has {', '.join(batch)}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of a detector in eval mode.

        Metrics are those of ``scores``, and

        - ``iou``: mean intersection over union of the boxes;
        - ``found``: share of the samples with the right class and an IoU of at least 0.5.

        Args:
            net: network to evaluate.
            batches: batches of the test data; items with ``valid`` False are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no sample has a label, no labelled sample has a box, or a logit is not
                finite.
        """
        collected: list[tuple[Tensor, ...]] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            parts = [outputs["logits"], outputs["box_logits"], batch["label"], batch["box"]]
            if teacher is not None:
                parts.append(teacher_outputs["logits"])
            if "valid" in batch:
                parts = [part[batch["valid"]] for part in parts]
            collected.append(tuple(parts))
        columns = [torch.cat(parts).cpu() for parts in zip(*collected, strict=True)]
        logits, box_logits, label, box, *others = columns
        metrics, details = scores(logits, label, others[0] if others else None)
        is_finite = box_logits.isfinite().all(1)
        if not is_finite.all():
            raise ValueError(
                f"{int((~is_finite).sum())} of {len(box_logits)} samples have box logits that are "
                "not finite"
            )
        is_counted = (label != UNLABELLED) & (box != UNLABELLED).all(1)
        if not is_counted.any():
            raise ValueError("no sample to evaluate on has a box")
        iou = box_iou(expected_boxes(box_logits), box.to(to_float32(box_logits)))[is_counted]
        is_correct = (logits.argmax(1) == label)[is_counted]
        is_found = (iou >= IOU_THRESHOLD) & is_correct
        return {
            "iou": iou.mean().item(),
            "found": is_found.double().mean().item(),
            **metrics,
        }, details


def expected_boxes(box_logits: Tensor) -> Tensor:
    """Return boxes (..., 4) in bins: the mean of each edge's distribution over the bins.

    Args:
        box_logits: (..., 4 * bins).
    """
    bins = box_logits.shape[-1] // 4
    edges = to_float32(box_logits).reshape(*box_logits.shape[:-1], 4, bins)
    probability = edges.softmax(-1)
    positions = torch.arange(bins, device=probability.device, dtype=probability.dtype)
    return (probability * positions).sum(-1)


def box_iou(boxes: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union (...) of boxes; 0 if both are empty.

    Args:
        boxes: (..., 4), left, top, right and bottom; a box that ends before it begins is empty.
        other: (..., 4).
    """
    low = torch.maximum(boxes[..., :2], other[..., :2])
    high = torch.minimum(boxes[..., 2:], other[..., 2:])
    intersection = _area(torch.cat([low, high], -1))
    union = _area(boxes) + _area(other) - intersection
    # The divisor is replaced where it is 0: torch.where alone would pass on a gradient of NaN.
    return torch.where(union > 0, intersection / torch.where(union > 0, union, 1), 0.0)


def _area(box: Tensor) -> Tensor:
    return (box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1)
