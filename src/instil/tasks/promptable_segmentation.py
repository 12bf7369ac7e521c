"""Promptable segmentation: the mask of the object that a box or a point shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs
from instil.functional.masks import best_masks, mask_iou, resize_masks
from instil.tasks.bases.prompted_call import PARTS, prompted_call, prompts_of
from instil.tasks.bases.task import Evaluation, Task


class PromptableSegmentation(Task):
    """Segmentation of the object that a prompt shows: a box, or points inside and outside of it.

    Samples are objects of an ``image`` (N, C, H, W), with two prompts. ``box`` (N, 4) has the left,
    top, right and bottom pixel. ``points`` (N, L, 2) have column and row; ``point_labels`` (N, L)
    are 1 inside of the object and 0 outside. One of both prompts is enough.

    Labels are int64 (N, H, W): 1 for a pixel of the object, 0 for others and -100 for no label.
    """

    card = Card("Promptable segmentation", tasks=("promptable_segmentation",))
    title = "promptable segmentation"
    names = ("image", "box", "label")
    inputs = ("image",)
    aliases: ClassVar = {"pixel_values": "image", "labels": "label"}
    roles = ("mask_logits", "iou_scores")
    headline = "miou"
    secondary = ("box_iou", "point_iou")
    label_objectives = ("segment_anything",)
    exports = False
    call = staticmethod(prompted_call)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if "points" in batch and "point_labels" not in batch:
            raise ValueError(
                "promptable segmentation needs 'point_labels' (N, L) with 'points'. Expected 1 for "
                "a point of the object and 0 for others"
            )
        prompts_of(batch)
        if batch["label"].shape != (len(batch["image"]), *batch["image"].shape[-2:]):
            raise ValueError(
                "label: promptable segmentation needs one mask per prompt. Expected the shape "
                f"(N, H, W) of the images {tuple(batch['image'].shape)}, got "
                f"{tuple(batch['label'].shape)}"
            )

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        missing = [part for part in PARTS if not hasattr(model, part)]
        if missing:
            raise ValueError(
                f"{type(model).__name__} has no {missing[0]}. Expected a model that segments "
                "prompted objects, such as transformers:AutoModelForMaskGeneration with "
                "config: {model_type: sam}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics in eval mode, of the mask with the best predicted overlap.

        Metrics, each averaged over the labelled objects:

        - ``miou``: intersection over union, averaged over the prompts;
        - ``box_iou`` and ``point_iou``: that of the box and of the points, if the data have them;
        - ``accuracy``: share of the pixels that are right, averaged over the prompts;
        - ``agreement``: intersection over union with the masks of the teacher.

        Args:
            net: network to evaluate.
            batches: batches of the test data; pixels without a label are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no object has a label, or a mask is not finite.
        """
        collected: dict[str, list[Tensor]] = {}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            for name, values in _scores(batch, outputs, teacher_outputs).items():
                collected.setdefault(name, []).append(values.double().cpu())
        metrics = {name: torch.cat(parts) for name, parts in collected.items()}
        if not len(metrics["miou"]):
            raise ValueError("no object to evaluate on has a label")
        return {name: values.mean().item() for name, values in metrics.items()}, {}


def _scores(batch: Batch, outputs: Outputs, teacher_outputs: Outputs) -> dict[str, Tensor]:
    """Metrics of each labelled object (n,)."""
    label = batch["label"]
    is_labelled = (label != UNLABELLED).flatten(1).any(1)
    target = (label == 1)[is_labelled, None]
    valid = (label != UNLABELLED)[is_labelled, None]
    masks = _chosen_masks(outputs, label)[is_labelled]
    overlap = mask_iou(masks, target, valid)
    is_right = ((masks == target) & valid).flatten(2).sum(2) / valid.flatten(2).sum(2)
    scores = {"miou": overlap.mean(1), "accuracy": is_right.mean(1)}
    names = [name for name, key in (("box_iou", "box"), ("point_iou", "points")) if key in batch]
    scores |= {name: overlap[:, position] for position, name in enumerate(names)}
    if "mask_logits" in teacher_outputs:
        others = _chosen_masks(teacher_outputs, label)[is_labelled]
        scores["agreement"] = mask_iou(masks, others, valid).mean(1)
    return scores


def _chosen_masks(outputs: Outputs, label: Tensor) -> Tensor:
    """Masks (N, P, H, W), boolean, with the best predicted overlap."""
    logits: Tensor = outputs["mask_logits"]
    if not logits.isfinite().all():
        raise ValueError("student: mask logits are not finite")
    height, width = label.shape[1:]
    resized = resize_masks(logits, (height, width))
    return best_masks(resized, outputs["iou_scores"]) > 0
