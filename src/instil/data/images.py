"""Labelled images in memory, or decoded on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instil.core import Batch
from instil.data.augmentation import Augmentation
from instil.data.samples import Facts, Samples


class ImageData(Samples):
    """Base class of image data sets; a batch has ``image`` float32 (B, C, H, W) in [0, 1].

    ``label`` is int64 (N,) for one class per image, float32 (N, C) for several, and -100 for no
    label. ``index`` is the identity of an image, which a subset keeps.
    """

    noun = "image"
    augmentation = Augmentation

    def images(self, rows: Tensor) -> Tensor:
        """Return the images of these rows, float32 (B, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": self.images(rows)}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the first image."""
        if not len(self):
            raise ValueError("the data set is empty")
        channels, height, width = self.images(torch.zeros(1, dtype=torch.int64)).shape[1:]
        return channels, height, width

    @property
    def facts(self) -> Facts:
        """``classes``, ``channels`` and ``size``: one number for square images, else (H, W)."""
        channels, height, width = self.shape
        return {
            "classes": len(self.classes),
            "channels": channels,
            "size": height if height == width else (height, width),
        }


class ArrayData(ImageData):
    """Images in memory.

    Args:
        image: (N, C, H, W), uint8, or floating point in [0, 1].
        label: class indices (N,), or float (N, C) for several classes per image.
        classes: class names.
        index: (N,), identity of each image; None for 0 to N - 1.

    Raises:
        ValueError: for another shape or type, values that are not finite or outside [0, 1], and
            labels that do not fit.
    """

    def __init__(
        self, image: Tensor, label: Tensor, classes: Sequence[str], index: Tensor | None = None
    ):
        if image.ndim != 4:
            raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(image.shape)}")
        if len(image) != len(label):
            raise ValueError(f"{len(label)} labels for {len(image)} images")
        if image.dtype != torch.uint8:
            image = in_unit_range(image)
        self.image = image.contiguous()
        super().__init__(label, classes, index)

    def images(self, rows: Tensor) -> Tensor:
        image = self.image.index_select(0, rows)
        return image.float().div_(255) if image.dtype == torch.uint8 else image

    def _take(self, rows: Tensor) -> None:
        self.image = self.image.index_select(0, rows)


class LazyData(ImageData):
    """Images decoded on demand.

    Args:
        read: function from a row to one image, as an array or an object that NumPy converts to one
            (a PIL image): (H, W) or (H, W, C), uint8, uint16 (divided by 65535), or float32 in
            [0, 1].
        label: class indices (N,), or float (N, C) for several classes per image.
        classes: class names.
        index: (N,), identity of each image; None for 0 to N - 1.
    """

    def __init__(
        self,
        read: Callable[[int], Any],
        label: Tensor,
        classes: Sequence[str],
        index: Tensor | None = None,
    ):
        self.read = read
        self.rows = torch.arange(len(label))
        super().__init__(label, classes, index)

    def images(self, rows: Tensor) -> Tensor:
        """Return the images of these rows, float32 (B, C, H, W) in [0, 1].

        Raises:
            ValueError: if their sizes differ.
        """
        images = [_channels_first(self.read(row)) for row in self.rows[rows].tolist()]
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            raise ValueError(
                "data.size: images of one batch differ in shape. Expected one shape, got (C, H, "
                f"W) = {shapes[0]} and {shapes[-1]}. Set data.size to resize them"
            )
        if all(image.dtype == torch.uint8 for image in images):
            return torch.stack(images).float().div_(255)
        return torch.stack([_unit(image) for image in images])

    def _take(self, rows: Tensor) -> None:
        self.rows = self.rows[rows]


def _channels_first(image: Any) -> Tensor:
    array = np.array(image)
    if array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    if array.dtype not in (np.uint8, np.float32) or array.ndim not in (2, 3):
        raise ValueError(
            "an image must be uint8, uint16 or float32 in [0, 1], of shape (H, W) or (H, W, C), "
            f"not {array.dtype} {array.shape}"
        )
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def _unit(image: Tensor) -> Tensor:
    """An image of either dtype in [0, 1]."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def in_unit_range(image: Tensor) -> Tensor:
    """Return floating-point images as float32.

    Raises:
        ValueError: for another type, and values that are not finite or outside [0, 1].
    """
    if not image.is_floating_point():
        dtype = str(image.dtype).removeprefix("torch.")
        raise ValueError(f"images must be uint8 or floating point, not {dtype}")
    if not image.isfinite().all():
        first = int((~image.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"images must be finite; image {first} is not")
    if image.numel() and (image.min() < 0 or image.max() > 1):
        span = f"{image.min().item():g} to {image.max().item():g}"
        raise ValueError(
            f"floating-point images must lie in [0, 1], these go from {span}; give uint8, or scale "
            "them"
        )
    return image.float()
