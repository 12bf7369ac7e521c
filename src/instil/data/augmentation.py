"""Random shifts and flips of images, also with boxes, that depend only on seed, image and view."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.functional.keyed_random import keyed_uniform


class Augmentation:
    """Shift every image by up to ``crop`` pixels and, with ``flip``, mirror half of them.

    The transformation is a function of ``seed``, ``index`` and ``view``: teacher and student get
    the same images, and results do not depend on how a batch is cut into micro-batches.

    Args:
        crop: largest shift in each direction, in pixels; zeros fill the border.
        flip: whether images are mirrored left to right with probability 1/2.
        seed: seed of the draws.

    Raises:
        ValueError: if ``crop`` is negative.
    """

    keys: ClassVar = ("image",)

    def __init__(self, crop: int = 0, flip: bool = False, seed: int = 0):
        if crop < 0:
            raise ValueError(f"augment.crop: {crop} is negative. Expected 0 or more pixels")
        self.crop = crop
        self.flip = flip
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with transformed images.

        Args:
            batch: has ``image`` (B, C, H, W), and ``index`` and ``view``, both int64 (B,).
        """
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        vertical, horizontal, mirror = keyed_uniform(moment, 3, "data.augmentation").unbind(1)
        image: Tensor = batch["image"]
        down = (vertical * (2 * self.crop + 1)).long()
        right = (horizontal * (2 * self.crop + 1)).long()
        return batch | {"image": shifted(image, down, right, self.crop, (mirror < 0.5) & self.flip)}


class BoxAugmentation:
    """Mirror half of the images left to right, with their boxes and masks.

    The mirrored images depend on ``seed``, ``index`` and ``view`` only.

    Args:
        flip: whether images are mirrored with probability 1/2.
        seed: seed of the draws.
    """

    keys: ClassVar = ("image",)

    def __init__(self, flip: bool = False, seed: int = 0):
        self.flip = flip
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with mirrored images, boxes and masks.

        Args:
            batch: has ``image`` (B, C, H, W), ``box`` (B, 4) or (B, K, 4), and ``index`` and
                ``view``, both int64 (B,). ``masks`` (B, K, H, W) are optional.

        Raises:
            ValueError: for samples without images.
        """
        if "image" not in batch:
            raise ValueError("augment.flip: the samples have boxes, but no key image. Remove flip")
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        draw = keyed_uniform(moment, 1, "data.box_augmentation")[:, 0]
        is_mirrored = (draw < 0.5) & self.flip
        width = batch["image"].shape[3]
        changed = {"box": mirrored_boxes(batch["box"], width, is_mirrored)}
        for key in ("image", "masks"):
            if key in batch:
                pixels = batch[key]
                rows = is_mirrored[:, None, None, None]
                changed[key] = torch.where(rows, pixels.flip(3), pixels)
        return batch | changed


def mirrored_boxes(box: Tensor, width: int, is_mirrored: Tensor) -> Tensor:
    """Mirror boxes left to right. Unknown boxes, which have -100, stay as they are.

    Args:
        box: (B, 4) or (B, K, 4), left, top, right and bottom edge in pixels.
        width: width of the images.
        is_mirrored: (B,), bool, whether the boxes of an image are mirrored.

    Returns:
        Boxes of the same shape.

    Example:
        >>> mirrored_boxes(torch.tensor([[1, 0, 3, 2]]), 8, torch.tensor([True]))
        tensor([[5, 0, 7, 2]])
    """
    left, top, right, bottom = box.unbind(-1)
    mirrored = torch.stack([width - right, top, width - left, bottom], -1)
    is_known = (box != UNLABELLED).all(-1, keepdim=True)
    rows = is_mirrored.view(-1, *[1] * (box.ndim - 1))
    return torch.where(rows & is_known, mirrored, box)


def shifted(image: Tensor, down: Tensor, right: Tensor, padding: int, mirrored: Tensor) -> Tensor:
    """Pad every image with zeros and cut a window of the original size out of it.

    Args:
        image: (B, C, H, W).
        down: (B,), int64, top edge of the window in the padded image.
        right: (B,), int64, left edge of the window in the padded image.
        padding: pixels on each side.
        mirrored: (B,), bool, whether the window is mirrored left to right.

    Returns:
        (B, C, H, W).
    """
    _, channels, height, width = image.shape
    rows = down[:, None] + torch.arange(height, device=image.device)
    columns = torch.arange(width, device=image.device)
    columns = right[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    padded = F.pad(image, (padding,) * 4)
    pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
    return padded.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).view_as(image)
