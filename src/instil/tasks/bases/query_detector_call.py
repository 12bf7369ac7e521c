"""Call of detection transformers of the library transformers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from instil.functional.boxes import boxes_as_fractions, centres, corners
from instil.items import UNLABELLED, Batch, Outputs
from instil.tasks.bases.query_decoding import recorded_decoder

MOST_DETECTIONS = 100
"""Largest number of detections of an image, as in COCO."""


def query_detector_call(
    model: Any, batch: Batch, images: Tensor, roles: Collection[str] | None = None
) -> Outputs:
    """Run a model such as ``DetrForObjectDetection`` or ``RTDetrForObjectDetection``.

    Args:
        model: model with the parameters ``pixel_values`` and ``labels``.
        batch: ``image`` (N, C, H, W); in train mode also ``box`` (N, M, 4) in pixels and ``label``
            (N, M), padded with -100.
        images: images for the model (N, 3, H', W').
        roles: roles that are read; None: all.

    Returns:
        ``query_boxes`` (N, Q, 4), centre and size as fractions of the image. Class logits are
        ``query_logits`` (N, Q, C + 1), whose last class means no object, or ``query_binary_logits``
        (N, Q, C), one sigmoid per class. In train mode ``loss``, else ``detections``, a tuple with
        ``boxes``, ``labels`` and ``scores`` of each image. DETR, DAB-DETR and RT-DETR also return
        ``query_decoder``, ``query_memory`` and ``query_points`` for ``kd_detr``.
    """
    labels = _labels(batch) if model.training else None
    with recorded_decoder(model, roles) as decoder:
        result = model(pixel_values=images, labels=labels)
    # Patterns of DAB-DETR repeat every query with other contents. YOLOS has detection tokens only.
    num_queries = getattr(model.config, "num_queries", result.logits.shape[1])
    num_queries *= getattr(model.config, "num_patterns", 0) or 1
    # RT-DETR puts the queries of its denoising loss in front, in train mode.
    logits = result.logits[:, -num_queries:]
    boxes = result.pred_boxes[:, -num_queries:]
    is_binary = logits.shape[-1] == model.config.num_labels
    role = "query_binary_logits" if is_binary else "query_logits"
    outputs: Outputs = {role: logits, "query_boxes": boxes, **decoder}
    if model.training:
        return outputs | {"loss": result.loss}
    height, width = batch["image"].shape[-2:]
    size = torch.tensor([width, height, width, height], device=boxes.device)
    scores = logits.sigmoid() if is_binary else logits.softmax(-1)[..., :-1]
    detections = _detections(scores, corners(boxes) * size)
    return outputs | {"detections": detections}


def _labels(batch: Batch) -> list[dict[str, Tensor]]:
    """Class indices and boxes of each image in the format of transformers."""
    fractions = boxes_as_fractions(batch, batch["box"])
    labels = []
    for box, label in zip(centres(fractions), batch["label"], strict=True):
        has_box = label != UNLABELLED
        labels.append({"class_labels": label[has_box], "boxes": box[has_box]})
    return labels


def _detections(scores: Tensor, boxes: Tensor) -> tuple[dict[str, Tensor], ...]:
    """The most likely pairs of query and class of each image."""
    num_classes = scores.shape[-1]
    flat = scores.flatten(1)
    top, index = flat.topk(min(MOST_DETECTIONS, flat.shape[1]), dim=1)
    query = index // num_classes
    detections = []
    for row in range(len(scores)):
        detections.append(
            {
                "boxes": boxes[row, query[row]],
                "labels": index[row] % num_classes,
                "scores": top[row],
            }
        )
    return tuple(detections)
