"""Images with a class for every pixel: pictures with mask files, or arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.images import ArrayData, LazyData
from instil.data.labelled_pixels import LabelledPixels
from instil.data.paired_pictures import LabelFolder, paired_pictures
from instil.data.pictures import Files
from instil.data.samples import Samples
from instil.data.splits import Splits, splits

VOID = 255
"""Value of the pixels of a mask that are ignored in training and evaluation."""
MASKS = LabelFolder("segmentation", "masks", "mask")


class MaskedImages(LabelledPixels):
    """Images whose label is the class of every pixel, int64 (N, H, W).

    A pixel with the value 255 is void: its ``valid`` is False. An image without a mask has the
    label -100 everywhere and stays valid, so that a student can learn from a teacher on it.

    Args:
        images: the images, in memory or decoded on demand; their own labels are ignored.
        mask: class indices (N, H, W), 255 for void and -100 for no label.
        classes: class names.
        index: (N,), identity of each image; None for 0 to N - 1.

    Raises:
        ValueError: for masks of another shape, and values that are not classes.
    """

    label_noun = "masks"

    def __init__(
        self,
        images: ArrayData | LazyData,
        mask: Tensor,
        classes: Sequence[str],
        index: Tensor | None = None,
    ):
        is_void = mask == VOID if len(classes) <= VOID else torch.zeros_like(mask, dtype=torch.bool)
        label = mask.masked_fill(is_void, UNLABELLED)
        super().__init__(images, label, ~is_void, classes, index)

    def _checked(self, label: Tensor) -> Tensor:
        return self._class_indices(label)


def masked_pictures(
    directories: Mapping[str, Path],
    root: Path,
    mode_options: Mapping[str, Any],
    classes: Sequence[str] | None,
    on_broken: str,
    validation: float,
    test: float,
) -> Splits:
    """Read pictures in ``images/`` and their masks in ``masks/``, which have the same stem.

    A mask is a picture of one channel, or with a palette, whose values are class indices; 255 is
    void. If 0 and 255 are the only values of all masks, they are the classes 0 and 1. A picture
    without a mask has no label. Masks are held in memory and resized like their pictures.

    Args:
        directories: folder of each split.
        root: folder of the data.
        mode_options: ``channels``, ``size`` and ``background`` of the pictures.
        classes: class names; None for their indices.
        on_broken: ``error`` or ``skip``.
        validation: share of the training data for a missing validation split.
        test: share of the training data for a missing test split.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing folder, a mask without a picture, and values that are not classes.
    """
    paired = paired_pictures(directories, root, MASKS, mode_options, on_broken)
    masks = paired.labels(_mask)
    _as_binary(masks)
    names = classes or _index_names(masks.values())
    parts: dict[str, Samples] = {
        part: MaskedImages(paired.images(part, names), mask, names) for part, mask in masks.items()
    }
    return replace(splits(parts, validation, test), notes=paired.notes)


def _mask(file: Path, size: tuple[int, int] | None) -> NDArray[np.int64]:
    from PIL import Image

    picture = Files((file,))(0)
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(
            f"{file}: a mask of mode {picture.mode}. Expected one channel or a palette, "
            "whose values are class indices"
        )
    if size and picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture).astype(np.int64)


def _as_binary(masks: dict[str, Tensor]) -> None:
    """Replace 255 by the class 1 if 0 and 255 are the only values of all masks, in place."""
    values: set[int] = set()
    for mask in masks.values():
        values.update(torch.unique(mask).tolist())
    if values - {UNLABELLED} == {0, VOID}:
        for part, mask in masks.items():
            masks[part] = torch.where(mask == VOID, 1, mask)


def _index_names(masks: Any) -> list[str]:
    """Names of the classes up to the largest value that is not void."""
    # Of a mask without such values, the value of no label is left.
    largest = max(int(mask.masked_fill(mask == VOID, UNLABELLED).max()) for mask in masks)
    if largest < 0:
        raise ValueError(
            f"no pixel of the masks has a class: all have {VOID} (void). Expected class indices "
            "from 0"
        )
    return [str(index) for index in range(largest + 1)]


def masked_arrays(
    images: ArrayData | LazyData, mask: Tensor, classes: Sequence[str] | None
) -> MaskedImages:
    """Combine images with masks in memory; mask values are as in ``masked_pictures``.

    Args:
        images: the images.
        mask: class indices (N, H, W), 255 for void, -100 for no label.
        classes: class names; None for their indices.

    Returns:
        Data set of the images with the class of every pixel.
    """
    masks = {"train": mask.to(torch.int64)}
    _as_binary(masks)
    return MaskedImages(images, masks["train"], classes or _index_names(masks.values()))
