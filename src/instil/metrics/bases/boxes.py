"""Mean average precision of boxes, computed by torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

Boxes = Mapping[str, Tensor]
"""``boxes`` (K, 4), ``labels`` (K,) and, for detections, ``scores`` (K,)."""


def average_precision_metric(iou_thresholds: Sequence[float] | None = None) -> Any:
    """Build the metric of torchmetrics.

    Args:
        iou_thresholds: intersections over union at which a box counts as detected; None: 0.5 to
            0.95 in steps of 0.05, as in COCO.

    Raises:
        ValueError: if pycocotools is not installed.
    """
    from torchmetrics.detection import MeanAveragePrecision

    # Those of COCO in float64. The defaults of torchmetrics are in float32, so that a recall or an
    # overlap of exactly a threshold may lie below it.
    thresholds = np.linspace(0.5, 0.95, 10).tolist()
    if iou_thresholds is not None:
        thresholds = list(iou_thresholds)
    recalls = np.linspace(0.0, 1.0, 101).tolist()
    try:
        metric = MeanAveragePrecision(
            iou_thresholds=thresholds, rec_thresholds=recalls, sync_on_compute=False
        )
    except ModuleNotFoundError as error:
        raise ValueError(
            'the mean average precision needs pycocotools: pip install "instil[detection]"'
        ) from error
    # Detectors of torchvision return up to 300 boxes; the best 100 count, as in COCO.
    metric.warn_on_many_detections = False
    return metric


def average_precisions(metric: Any) -> dict[str, float]:
    """Return the mean average precision over classes and thresholds.

    Args:
        metric: result of ``average_precision_metric``, with all samples.

    Returns:
        ``map``, and ``map_50`` if 0.5 is one of the thresholds.

    Raises:
        ValueError: if no sample has a box.
    """
    values = metric.compute()
    # pycocotools returns -1 for data without a box, and for thresholds that it did not compute.
    if values["map"] < 0:
        raise ValueError("no sample to evaluate on has a box")
    return {name: float(values[name]) for name in ("map", "map_50") if values[name] >= 0}


def on_cpu(boxes: Boxes) -> dict[str, Tensor]:
    """Return boxes without graph on the CPU."""
    return {name: value.detach().cpu() for name, value in boxes.items()}
