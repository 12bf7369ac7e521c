"""Mean average precision of detected boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs
from instil.metrics.bases.boxes import average_precision_metric, average_precisions, on_cpu
from instil.metrics.bases.metric import Metric
from instil.metrics.bases.packages import COCO_PACKAGES


class MeanAveragePrecision(Metric):
    """Mean average precision of ``detections``, over classes and thresholds.

    Labels are int64 (N, K) and ``box`` (N, K, 4), padded with -100. Groups of objects, if there are
    any, are ``group_label`` and ``group_box`` in this form. Detections in a group of their class
    do not count, as in the evaluation of COCO. ``detections`` has ``boxes``, ``labels`` and
    ``scores`` of each sample.
    """

    card = Card(
        "Microsoft COCO: Common Objects in Context",
        "https://arxiv.org/abs/1405.0312",
        "ECCV",
        2014,
        tasks=("detection",),
        labels=("boxes",),
        use="Detectors of any number of objects per image.",
        pitfalls="It needs pycocotools (extra detection). Tiny test sets make it noisy.",
    )
    roles = ("detections",)
    batch_keys = ("label", "box")
    packages: ClassVar[Mapping[str, str]] = COCO_PACKAGES

    def __init__(
        self,
        iou_thresholds: Annotated[
            list[float] | None,
            Doc("intersections over union of a detected box; None: 0.5 to 0.95, as in COCO"),
        ] = None,
    ) -> None:
        self.iou_thresholds = iou_thresholds
        self.reset()

    def reset(self) -> None:
        self._metric = average_precision_metric(self.iou_thresholds)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        detections = [on_cpu(each) for each in outputs["detections"]]
        targets = [on_cpu(_target(batch, row)) for row in range(len(batch["label"]))]
        if "num_boxes" in batch:
            rows = [row for row, count in enumerate(batch["num_boxes"].tolist()) if count >= 0]
            detections = [detections[row] for row in rows]
            targets = [targets[row] for row in rows]
        self._metric.update(detections, targets)

    def compute(self) -> float:
        return average_precisions(self._metric)["map"]

    def scores(self) -> dict[str, float]:
        """Compute the value as ``map``, and that at an overlap of 0.5 as ``map_50``.

        Returns:
            Both, or ``map`` alone if 0.5 is not one of the thresholds.
        """
        return average_precisions(self._metric)


def _target(batch: Batch, row: int) -> dict[str, Tensor]:
    """Objects and groups of objects of a sample."""
    prefixes = ("", "group_") if "group_label" in batch else ("",)
    label = torch.cat([batch[f"{prefix}label"][row] for prefix in prefixes])
    box = torch.cat([batch[f"{prefix}box"][row] for prefix in prefixes])
    is_group = torch.arange(len(label), device=label.device) >= batch["label"].shape[1]
    has_box = label != UNLABELLED
    return {"boxes": box[has_box], "labels": label[has_box], "iscrowd": is_group[has_box].int()}
