"""Call of the YOLO detectors of the library ultralytics."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from instil.functional.boxes import boxes_as_fractions, centres
from instil.functional.edge_distributions import expected_boxes
from instil.items import UNLABELLED, Batch, Outputs
from instil.tasks.bases.dense_outputs import DISTRIBUTIONS, PREDICTIONS
from instil.tasks.bases.yolo_suppression import suppressed

SMALLEST_SCORE = 0.001
"""Smallest score of a detection, as in the validation of ultralytics."""
LARGEST_OVERLAP = 0.7
"""Largest intersection over union of two detections of a class, as there."""
SECONDS_PER_IMAGE = 60.0
"""Time for the suppression of overlapping boxes; ultralytics drops the images after it."""


def is_yolo(model: Any) -> bool:
    """Whether a model is a detector with the head ``Detect`` of ultralytics.

    Args:
        model: any module.
    """
    if not hasattr(model, "init_criterion") or not isinstance(model.model, nn.Sequential):
        return False
    return hasattr(model.model[-1], "reg_max")


def yolo_call(
    model: Any, batch: Batch, images: Tensor, roles: Collection[str] | None = None
) -> Outputs:
    """Run a YOLO detector; in train mode it returns its loss.

    Predictions of all anchors are those of the head that detects. In a model with two heads
    (YOLO26), it is the one without suppression of overlapping boxes, and no gradient passes from it
    to the backbone.

    Args:
        model: detector of ultralytics.
        batch: ``image`` (N, C, H, W); in train mode also ``box`` (N, M, 4) in pixels and ``label``
            (N, M), padded with -100.
        images: images for the model (N, C, H', W'); sides are multiples of its largest stride.
        roles: roles that are read; None: all.

    Returns:
        ``loss``, its three parts by name, divided by the number of images, in train mode; else
        ``detections``, a tuple with ``boxes`` in pixels of the batch, ``labels`` and ``scores`` of
        each image. Also ``anchor_logits`` (N, anchors, C) and ``anchor_boxes`` (N, anchors, 4) in
        pixels of ``images``; of a head with distributions (YOLO11 and earlier) ``edge_logits``,
        ``foreground``, ``target_boxes`` and ``anchors``, see ``instil.tasks.bases.dense_outputs``.

    Raises:
        ValueError: for images whose sides are not multiples of the stride.
    """
    _check_size(images, int(model.stride.max()))
    fractions = boxes_as_fractions(batch, images)
    foreground: list[Tensor] = []
    if model.training:
        predictions = model(images)
        with _recorded_assignment(model, foreground):
            outputs: Outputs = {"loss": _loss(model, predictions, batch, fractions)}
    else:
        decoded, predictions = model(images)
        outputs = {"detections": _detections(model, decoded, batch["image"], images)}
    if roles is None or set(roles) & {*PREDICTIONS, *DISTRIBUTIONS}:
        outputs |= _dense_outputs(model, predictions, images, fractions, foreground)
    return outputs


def _check_size(images: Tensor, stride: int) -> None:
    height, width = images.shape[-2:]
    if height % stride or width % stride:
        nearest = max(1, round(max(height, width) / stride)) * stride
        raise ValueError(
            f"input.size: this detector reads images whose sides are multiples of {stride}. "
            f"Expected a size such as {nearest}, got {height} x {width}"
        )


def _criterion(model: Any) -> Any:
    """Loss of the model, on its device."""
    device = next(model.parameters()).device
    criterion = getattr(model, "criterion", None)
    if criterion is None or getattr(criterion, "one2many", criterion).device != device:
        model.criterion = model.init_criterion()
    return model.criterion


@contextlib.contextmanager
def _recorded_assignment(model: Any, foreground: list[Tensor]) -> Iterator[None]:
    """Add the mask (N, anchors) of the anchors with an object to a list."""
    criterion = _criterion(model)
    branch = "one2one" if model.end2end else "one2many"
    assigner = getattr(criterion, branch, criterion).assigner

    def record(_module: Any, _inputs: Any, output: tuple[Tensor, ...]) -> None:
        foreground.append(output[3].float())

    hook = assigner.register_forward_hook(record)
    try:
        yield
    finally:
        hook.remove()


def _loss(model: Any, predictions: Any, batch: Batch, fractions: Tensor) -> dict[str, Tensor]:
    label = batch["label"]
    has_box = label != UNLABELLED
    targets = {
        "batch_idx": has_box.nonzero()[:, 0],
        "cls": label[has_box].to(fractions.dtype),
        "bboxes": centres(fractions)[has_box],
    }
    parts, names = model.loss(targets, predictions)
    # ultralytics multiplies its mean over the batch by the number of images.
    return dict(zip(names, parts / max(1, len(label)), strict=True))


def _detections(
    model: Any, decoded: Tensor, originals: Tensor, images: Tensor
) -> tuple[dict[str, Tensor], ...]:
    """Objects of each image, in pixels of the batch."""
    most = model.model[-1].max_det
    if torch.onnx.is_in_onnx_export():
        rows = [suppressed(decoded, SMALLEST_SCORE, LARGEST_OVERLAP, most, model.end2end)]
    else:
        rows = _suppressed(model, decoded, most)
    height, width = (originals.shape[axis] / images.shape[axis] for axis in (-2, -1))
    scale = torch.tensor([width, height, width, height], device=decoded.device)
    return tuple(
        {"boxes": row[:, :4] * scale, "labels": row[:, 5].long(), "scores": row[:, 4]}
        for row in rows
    )


def _suppressed(model: Any, decoded: Tensor, most: int) -> list[Tensor]:
    """Edges, scores and class indices (K, 6) of the objects of each image."""
    from ultralytics.utils.nms import non_max_suppression

    rows: list[Tensor] = non_max_suppression(
        decoded.float(),
        SMALLEST_SCORE,
        LARGEST_OVERLAP,
        multi_label=True,
        max_det=most,
        max_time_img=SECONDS_PER_IMAGE,
        end2end=model.end2end,
    )
    return rows


def _dense_outputs(
    model: Any, predictions: Any, images: Tensor, fractions: Tensor, foreground: list[Tensor]
) -> Outputs:
    """Predictions of all anchors, and their distributions of the edges."""
    branch = predictions.get("one2one" if model.end2end else "one2many", predictions)
    points, strides = _points(branch["feats"], model.stride)
    edges = branch["boxes"].transpose(1, 2)
    bins = edges.shape[-1] // 4
    distances = edges.float() if bins == 1 else expected_boxes(edges)
    low, high = (distances * strides).chunk(2, -1)
    outputs: Outputs = {
        "anchor_logits": branch["scores"].transpose(1, 2),
        "anchor_boxes": torch.cat((points - low, points + high), -1),
    }
    if bins > 1:
        height, width = images.shape[-2:]
        size = torch.tensor([width, height, width, height], device=fractions.device)
        anchors = torch.cat((points - strides / 2, points + strides / 2), -1)
        # Objects are assigned to anchors in train mode only.
        mask = (
            foreground[0] if foreground else edges.new_zeros(edges.shape[:2], dtype=torch.float32)
        )
        boxes = fractions * size if foreground else fractions[:, :0]
        parts = (edges, mask, boxes, anchors.expand(len(edges), -1, -1))
        outputs |= dict(zip(DISTRIBUTIONS, parts, strict=True))
    return outputs


def _points(levels: list[Tensor], strides: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (anchors, 2) of the cells of all levels in pixels, and their strides (anchors, 1)."""
    points, sides = [], []
    for level, stride in zip(levels, strides.tolist(), strict=True):
        height, width = level.shape[-2:]
        y, x = (torch.arange(size, device=level.device) + 0.5 for size in (height, width))
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)
        points.append(grid * stride)
        sides.append(grid.new_full((len(grid), 1), stride))
    return torch.cat(points), torch.cat(sides)
