"""Call of detectors that compute their losses themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from instil.items import UNLABELLED, Batch, Outputs


def detector_call(model: Any, batch: Batch, background: bool = False) -> Outputs:
    """Run a detector of ``torchvision.models.detection``; in train mode it returns its losses.

    Args:
        model: detector that maps a list of images, and in train mode targets, to losses (train
            mode) or detections (eval mode).
        batch: ``image`` (N, 3, H, W) in [0, 1], ``box`` (N, M, 4) as x1, y1, x2, y2 in pixels, and
            ``label`` (N, M); -100 fills up the rows of samples with fewer boxes. Grey images
            become colour images.
        background: whether class 0 of the model is the background, and class 0 of the data its
            class 1.

    Returns:
        ``loss``, the losses by name, in train mode; else ``detections``, a tuple with ``boxes``,
        ``labels`` and ``scores`` of each image.
    """
    image = batch["image"]
    images = list(image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image)
    shift = int(background)
    if not model.training:
        return {"detections": tuple(_shifted(each, -shift) for each in model(images))}
    targets = []
    for box, label in zip(batch["box"], batch["label"], strict=True):
        has_box = label != UNLABELLED
        targets.append({"boxes": box[has_box], "labels": label[has_box] + shift})
    return {"loss": model(images, targets)}


def _shifted(detections: dict[str, Tensor], shift: int) -> dict[str, Tensor]:
    """Detections with other class indices."""
    return {**detections, "labels": detections["labels"] + shift} if shift else detections
