"""Images to the class and the box of one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.tasks.bases.scores import scores
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import check_images, preprocess


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """``logits`` (N, C) and ``box_logits`` (N, 4 * bins) for ``image`` (N, C, H, W) in [0, 1], resized and normalised as this model expects it.

    The model gives them by these names, or one after the other.
    """
    answer = model(preprocess(batch["image"], size, mean, std))
    logits, box_logits = (
        (answer["logits"], answer["box_logits"]) if isinstance(answer, Mapping) else answer
    )
    return {"logits": logits, "box_logits": box_logits}


class Detection(Task):
    """What the loop and the command line ask of the task.

    Labels are int64 (N,), -100 where there is none; ``box`` (N, 4) is the left, top, right and bottom edge, in bins, -100 where unknown.
    """

    card = Card("Detection of one object", tasks=("detection",))
    title = "detection"
    names = ("image", "box", "label")
    inputs = ("image",)
    roles = ("logits", "box_logits")
    label_objectives = ("cross_entropy", "distribution_focal")
    headline = "iou"
    exports = False
    call = staticmethod(call)

    def to_batch(self, given: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Images (N, C, H, W): uint8, or float in [0, 1]; resized to those that the student was trained on."""
        batch = super().to_batch(given, shape)
        return batch | {
            "image": preprocess(
                check_images(batch["image"], shape[0]), (shape[1], shape[2]), None, None
            )
        }

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if (
            batch["label"].ndim != 1
            or "box" not in batch
            or batch["box"].shape != (len(batch["label"]), 4)
        ):
            raise ValueError(
                f"detection needs a label (N,) and a box (N, 4); this batch has {', '.join(batch)}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """``iou`` (mean over the samples of intersection over union of the box), ``found`` (the share with the right class and an IoU of at least
        0.5), and what ``scores`` says of the classes.

        Raises ValueError where no sample has a label and a box, or a logit is not finite.
        """
        collected: list[tuple[Tensor, ...]] = []
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            rows = (
                mine["logits"],
                mine["box_logits"],
                batch["label"],
                batch["box"],
                *([] if teacher is None else [theirs["logits"]]),
            )
            collected.append(
                tuple(part[batch["valid"]] if "valid" in batch else part for part in rows)
            )
        logits, box_logits, label, box, *others = (
            torch.cat(parts).cpu() for parts in zip(*collected, strict=True)
        )
        metrics, details = scores(logits, label, others[0] if others else None)
        if not box_logits.isfinite().all():
            raise ValueError(
                f"{int((~box_logits.isfinite()).any(1).sum())} of {len(box_logits)} samples have box logits that are not finite"
            )
        counted = (label != UNLABELLED) & (box != UNLABELLED).all(1)
        if not counted.any():
            raise ValueError("no sample to evaluate on has a box")
        shared = box_iou(expected_boxes(box_logits), box.to(to_float32(box_logits)))[counted]
        right = (logits.argmax(1) == label)[counted]
        return {
            "iou": shared.mean().item(),
            "found": ((shared >= 0.5) & right).double().mean().item(),
            **metrics,
        }, details


def expected_boxes(box_logits: Tensor) -> Tensor:
    """Boxes (..., 4) in bins: of each edge the mean of its distribution over the bins; logits (..., 4 * bins)."""
    probability = (
        to_float32(box_logits)
        .reshape(*box_logits.shape[:-1], 4, box_logits.shape[-1] // 4)
        .softmax(-1)
    )
    places = torch.arange(probability.shape[-1], device=probability.device, dtype=probability.dtype)
    return (probability * places).sum(-1)


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 4): left, top, right, bottom; 0 where both are empty, and what ends before it begins is empty."""
    shared = _area(
        torch.cat(
            [
                torch.maximum(one[..., :2], other[..., :2]),
                torch.minimum(one[..., 2:], other[..., 2:]),
            ],
            -1,
        )
    )
    union = _area(one) + _area(other) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0.0)


def _area(box: Tensor) -> Tensor:
    return (box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1)
