"""Call of detectors that compute their losses themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from instil.items import UNLABELLED, Batch, Outputs
from instil.tasks.bases.dense_outputs import recorded_head


def detector_call(
    model: Any, batch: Batch, background: bool = False, roles: Collection[str] | None = None
) -> Outputs:
    """Run a detector of ``torchvision.models.detection``; in train mode it returns its losses.

    Args:
        model: detector that maps a list of images, and in train mode targets, to losses (train
            mode) or detections (eval mode).
        batch: ``image`` (N, 3, H, W) in [0, 1], ``box`` (N, M, 4) as x1, y1, x2, y2 in pixels, and
            ``label`` (N, M); -100 fills up the rows of samples with fewer boxes. Grey images
            become colour images. ``masks`` (N, M, H, W) are for detectors with masks.
        background: whether class 0 of the model is the background, and class 0 of the data its
            class 1.
        roles: roles that are read; None: all.

    Returns:
        ``loss``, the losses by name, in train mode; else ``detections``, a tuple with ``boxes``,
        ``labels`` and ``scores`` of each image. A detector with the head of RetinaNet or FCOS
        also returns ``anchor_logits`` (N, anchors, C), ``anchor_boxes`` (N, anchors, 4) and, for
        ``crosskd``, ``class_features``, ``box_features`` and ``dense_head``. With distributions
        of the edges it returns ``edge_logits``, ``foreground``, ``target_boxes`` and ``anchors``,
        see ``instil.tasks.bases.dense_outputs``.

    Raises:
        ValueError: for a detector with masks and a batch without them.
    """
    image = batch["image"]
    images = list(image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image)
    shift = int(background)
    with recorded_head(model, roles) as dense:
        if not model.training:
            detections = tuple(_shifted(each, -shift) for each in model(images))
        else:
            _check_masks(model, batch)
            loss = model(images, _targets(batch, shift))
    return dense | ({"loss": loss} if model.training else {"detections": detections})


def _check_masks(model: Any, batch: Batch) -> None:
    heads: Any = getattr(model, "roi_heads", None)
    if hasattr(heads, "has_mask") and heads.has_mask() and "masks" not in batch:
        raise ValueError(
            "the batch has no masks. Expected masks (N, K, H, W) of the objects, which a data "
            "source of your own adds. Use FasterRCNN to learn from boxes alone"
        )


def _targets(batch: Batch, shift: int) -> list[dict[str, Tensor]]:
    """Boxes and class indices of each image."""
    targets = []
    for row, (box, label) in enumerate(zip(batch["box"], batch["label"], strict=True)):
        has_box = label != UNLABELLED
        target = {"boxes": box[has_box], "labels": label[has_box] + shift}
        if "masks" in batch:
            target["masks"] = batch["masks"][row][has_box]
        targets.append(target)
    return targets


def _shifted(detections: dict[str, Tensor], shift: int) -> dict[str, Tensor]:
    """Detections with other class indices."""
    return {**detections, "labels": detections["labels"] + shift} if shift else detections
