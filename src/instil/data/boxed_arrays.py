"""Images in memory with boxes that are padded to the largest number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.label_kinds import BoxData


def boxed_arrays(
    image: Tensor, label: NDArray[Any], box: NDArray[Any], classes: Sequence[str] | None
) -> BoxData:
    """Combine images with padded boxes.

    Args:
        image: (N, C, H, W), uint8 or in [0, 1].
        label: class indices (N, K), -100 for no object.
        box: left, top, right and bottom (N, K, 4) in pixels.
        classes: class names; None for their indices.

    Raises:
        ValueError: for other shapes or types.
    """
    if label.ndim != 2 or label.dtype.kind not in "iu" or box.shape != (*label.shape, 4):
        raise ValueError(
            "box: wrong shape. Expected a label (N, K) of class indices and a box (N, K, 4), got "
            f"{label.dtype} {label.shape} and {box.shape}"
        )
    is_object = label != UNLABELLED
    boxes = [part[mask].astype(np.float32) for part, mask in zip(box, is_object, strict=True)]
    labels = [part[mask] for part, mask in zip(label, is_object, strict=True)]
    if classes is None:
        classes = [str(index) for index in range(int(label.max()) + 1)]
    pixels = image.float().div(255) if image.dtype == torch.uint8 else image.float()
    height, width = pixels.shape[2:]
    size = height if height == width else (height, width)
    facts = {"channels": pixels.shape[1], "size": size}
    return BoxData({"image": pixels}, boxes, labels, classes, facts)
