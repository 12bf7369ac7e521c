"""Labelled images that hand out ready batches, from memory or decoded on demand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from instil.core import UNLABELLED, Batch

Rows = Tensor | Sequence[int]


class ImageData:
    """Images with labels: ``data.__getitems__(rows)`` is the batch of these rows.

    ``label`` is int64 (N,) for one class an image, float32 (N, C) for several, -100 where there is none; ``index`` is the image's identity,
    which a subset keeps. Raises ValueError for labels that fit neither the images nor the classes.
    """

    def __init__(self, label: Tensor, classes: Sequence[str], index: Tensor | None = None):
        self.classes = tuple(classes)
        self.index = torch.arange(len(label)) if index is None else index
        self.label = _checked(label, self.classes)
        self._view = torch.zeros(len(label), dtype=torch.int64)

    def images(self, rows: Tensor) -> Tensor:
        """float32 (B, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def _take(self, rows: Tensor) -> None:
        """Keep only these images."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.label)

    def __getitems__(self, rows: Rows) -> Batch:
        """``image`` float32 (B, C, H, W) in [0, 1], ``label``, ``index`` and ``view`` (0; the loader sets it)."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return {"image": self.images(rows), "label": self.label[rows], "index": self.index[rows], "view": self._view[: len(rows)]}

    def __getitem__(self, row: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([row]).items()}

    @property
    def kind(self) -> str:
        """``single`` (one class an image), ``multi`` (any number of classes) or ``binary`` (yes or no: label (N, 1))."""
        return "single" if self.label.ndim == 1 else "binary" if self.label.shape[1] == 1 else "multi"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        if not len(self):
            raise ValueError("the data set is empty")
        channels, height, width = self.images(torch.zeros(1, dtype=torch.int64)).shape[1:]
        return channels, height, width

    def subset(self, rows: Rows) -> Self:
        """These rows as a data set of their own; every image keeps its index."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        part = copy.copy(self)
        part.label, part.index, part._view = self.label[rows], self.index[rows], self._view[: len(rows)]
        part._take(rows)
        return part

    def relabel(self, label: Tensor) -> Self:
        """The same images with other labels."""
        if len(label) != len(self):
            raise ValueError(f"{len(label)} labels for {len(self)} images")
        other = copy.copy(self)
        other.label = _checked(label, self.classes)
        return other


class ArrayData(ImageData):
    """Images in memory: uint8, or floating point in [0, 1], of shape (N, C, H, W).

    Raises ValueError for another shape or type, for values that are not finite or leave [0, 1], and for labels that do not fit.
    """

    def __init__(self, image: Tensor, label: Tensor, classes: Sequence[str], index: Tensor | None = None):
        if image.ndim != 4:
            raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(image.shape)}")
        if len(image) != len(label):
            raise ValueError(f"{len(label)} labels for {len(image)} images")
        if image.dtype != torch.uint8:
            image = _in_unit_range(image)
        self.image = image.contiguous()
        super().__init__(label, classes, index)

    def images(self, rows: Tensor) -> Tensor:
        image = self.image.index_select(0, rows)
        return image.float().div_(255) if image.dtype == torch.uint8 else image

    def _take(self, rows: Tensor) -> None:
        self.image = self.image.index_select(0, rows)


class LazyData(ImageData):
    """Images decoded on demand: ``read(row)`` gives one as uint8 (H, W) or (H, W, C), as an array or as anything that makes one (a PIL image).

    Raises ValueError where the images of a batch differ in size.
    """

    def __init__(self, read: Callable[[int], Any], label: Tensor, classes: Sequence[str], index: Tensor | None = None):
        self.read = read
        self.rows = torch.arange(len(label))
        super().__init__(label, classes, index)

    def images(self, rows: Tensor) -> Tensor:
        read = [_channels_first(self.read(row)) for row in self.rows[rows].tolist()]
        shapes = sorted({tuple(image.shape) for image in read})
        if len(shapes) > 1:
            raise ValueError(f"images of one batch differ in shape, for example (C, H, W) = {shapes[0]} and {shapes[-1]}; give `size` to resize them")
        return torch.stack(read).float().div_(255)

    def _take(self, rows: Tensor) -> None:
        self.rows = self.rows[rows]


def _channels_first(image: Any) -> Tensor:
    array = np.array(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"an image must be uint8 of shape (H, W) or (H, W, C), not {array.dtype} {array.shape}")
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def _in_unit_range(image: Tensor) -> Tensor:
    if not image.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point, not {str(image.dtype).removeprefix('torch.')}")
    if not image.isfinite().all():
        first = int((~image.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"images must be finite; image {first} is not")
    if image.numel() and (image.min() < 0 or image.max() > 1):
        span = f"{image.min().item():g} to {image.max().item():g}"
        raise ValueError(f"floating-point images must lie in [0, 1], these go from {span}; give uint8, or scale them")
    return image.float()


def _checked(label: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Labels as int64 (N,) or float32 (N, C)."""
    if label.ndim == 1:
        if label.is_floating_point() and not torch.equal(label, label.round()):
            raise ValueError("labels of shape (N,) are class numbers and must be whole")
        label = label.to(torch.int64)
        wrong = ((label < 0) | (label >= len(classes))) & (label != UNLABELLED)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(f"label {int(label[row])} of image {row} is none of the {len(classes)} classes (0 to {len(classes) - 1}, or -100: none)")
        return label
    if label.ndim != 2 or label.shape[1] != len(classes):
        raise ValueError(f"labels must have the shape (N,), or (N, {len(classes)}) for several classes an image, not {tuple(label.shape)}")
    label = label.to(torch.float32)
    wrong = ~((label >= 0) & (label <= 1)) & (label != UNLABELLED)
    if wrong.any():
        row = int(wrong.any(1).nonzero()[0])
        raise ValueError(f"labels of shape (N, C) must lie in [0, 1] (or be -100: none); those of image {row} do not")
    return label
