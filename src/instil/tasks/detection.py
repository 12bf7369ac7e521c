"""Detection of one object per image, or of any number of objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.cards import form_of
from instil.core import UNLABELLED, Batch, Card, Outputs, batch_size, to_float32
from instil.data.augmentation import BoxAugmentation
from instil.data.samples import Samples
from instil.functional.boxes import box_iou
from instil.functional.edge_distributions import expected_boxes
from instil.metrics.bases.packages import COCO_PACKAGES, require_packages
from instil.tasks.bases.box_scores import box_scores
from instil.tasks.bases.checks import check_class_order, check_has_label
from instil.tasks.bases.detector_call import detector_call
from instil.tasks.bases.own_labels import label_parameter
from instil.tasks.bases.query_detector_call import query_detector_call
from instil.tasks.bases.scores import scores
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.bases.yolo_call import is_yolo, yolo_call
from instil.tasks.classification import preprocess, resized_images

IOU_THRESHOLD = 0.5
"""Smallest intersection over union of a box that counts as found."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    roles: Collection[str] | None = None,
) -> Outputs:
    """Compute the outputs of a detector.

    Args:
        model: a model that returns logits and box logits, by these names or in this order; a
            detector with the parameter ``targets``, as those of torchvision, whose class 0 is the
            background; one with ``labels``, as those of transformers; or a YOLO of ultralytics.
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.
        roles: roles that are read; None: all.

    Returns:
        ``logits`` (N, C) and ``box_logits`` (N, 4 * bins). Of a detector with ``targets`` or
        ``labels`` and of a YOLO its ``loss`` in train mode, ``detections`` in eval mode, and
        further roles of ``detector_call``, ``query_detector_call`` and ``yolo_call``.

    Raises:
        ValueError: for a model with other outputs.
    """
    if label_parameter(model) == "targets":
        _check_own_transform(model, size, mean, std)
        return detector_call(model, batch, background=True, roles=roles)
    images = preprocess(batch["image"], size, mean, std)
    if label_parameter(model) == "labels":
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return query_detector_call(model, batch, colour, roles)
    if is_yolo(model):
        return yolo_call(model, batch, images, roles)
    result = model(images)
    if isinstance(result, Mapping) and {"logits", "box_logits"} <= result.keys():
        return {"logits": result["logits"], "box_logits": result["box_logits"]}
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise ValueError(
            "the model does not detect objects. Expected class logits and box logits, or a "
            f"detector of torchvision, transformers or ultralytics, got {form_of(result)}"
        )
    logits, box_logits = result
    return {"logits": logits, "box_logits": box_logits}


def _check_own_transform(
    model: Any,
    size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Refuse options that a detector does not read, because it prepares the images itself."""
    if mean is not None or std is not None:
        raise ValueError(
            "input: this detector normalises images itself. Expected no mean and std. Set its "
            "options image_mean and image_std"
        )
    own_sides = getattr(getattr(model, "transform", None), "min_size", None)
    side = min(size) if isinstance(size, (tuple, list)) else size
    if side is not None and own_sides is not None and side not in own_sides:
        raise ValueError(
            f"input.size: this detector resizes images itself, to {own_sides[0]} pixels. Expected "
            f"no size. Set its options min_size and max_size to {side}"
        )


class Detection(Task):
    """Detection of objects.

    Labels of the kind ``single``: ``label`` is int64 (N,), -100 for no label. ``box`` (N, 4) is the
    left, top, right and bottom edge in bins, -100 if it is unknown.

    Labels of the kind ``boxes``: ``label`` is int64 (N, K) and ``box`` (N, K, 4) in pixels, padded
    with -100. Networks are detectors that compute their loss themselves, such as those of
    torchvision.

    Args:
        kind: kind of the labels: ``single`` or ``boxes``.
    """

    card = Card("Detection of objects", tasks=("detection",), labels=("single", "boxes"))
    title = "detection"
    names = ("image", "box", "label")
    inputs = ("image",)
    roles: tuple[str, ...] = ("logits", "box_logits")
    label_objectives: tuple[str, ...] = ("cross_entropy", "distribution_focal")
    headline = "iou"
    augmentation = BoxAugmentation
    kinds = ("single", "boxes")
    baselines: ClassVar = {"single": ("alone",), "boxes": ("alone",)}
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "single"):
        super().__init__(kind)
        if kind == "boxes":
            self.roles = ("detections",)
            self.label_objectives = ("own_loss",)
            self.headline = "map"
            self.secondary = ("map_50",)
            self.object_outputs = ("boxes", "scores", "labels")
            self.compares_teacher = False

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], in the size of training."""
        return resized_images(super().to_batch(inputs, shape), shape)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        label = batch["label"]
        if self.kind == "boxes":
            require_packages(COCO_PACKAGES)
            if "box" not in batch or batch["box"].shape != (*label.shape, 4):
                raise ValueError(
                    "detection needs a label (N, K) and a box (N, K, 4); this batch has "
                    f"{', '.join(batch)}"
                )
            return
        if label.ndim != 1 or "box" not in batch or batch["box"].shape != (len(label), 4):
            remedy = (
                '. Use the task Detection("boxes") for several objects' if label.ndim > 1 else ""
            )
            raise ValueError(
                f"detection needs a label (N,) and a box (N, 4); this batch has {', '.join(batch)}"
                f"{remedy}"
            )

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        super().check_classes(outputs, classes, names, whose)
        if self.kind == "boxes":
            check_class_order(classes, names, whose)

    def check_evaluated(self, samples: Samples, name: str) -> None:
        check_has_label(samples, name, "box" if self.kind == "boxes" else "label")

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the outputs of an exported student; a graph of many objects reads one image."""
        if self.kind != "boxes":
            return graph(batch)
        rows = []
        for index in range(batch_size(batch)):
            row = {key: value[index : index + 1] for key, value in batch.items()}
            rows.append(graph(row))
        return {"detections": tuple(rows)}

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of a detector in eval mode.

        Metrics are those of ``scores``, and

        - ``iou``: mean intersection over union of the boxes;
        - ``found``: share of the samples with the right class and an IoU of at least 0.5.

        Those of labels of the kind ``boxes`` are ``map`` and ``map_50``, see ``box_scores``.

        Args:
            net: network to evaluate.
            batches: batches of the test data; items with ``valid`` False are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no sample has a label, no labelled sample has a box, or a logit is not
                finite.
        """
        if self.kind == "boxes":
            results = (
                (batch, outputs) for batch, outputs, _ in self.iter_outputs(net, batches, None)
            )
            return box_scores(results), {}
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
