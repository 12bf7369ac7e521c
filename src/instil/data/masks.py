"""Images with a class for every pixel: pictures with mask files, or arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.images import ArrayData, LazyData
from instil.data.labelled_pixels import LabelledPixels
from instil.data.paired_pictures import LabelFolder, PairedPictures, paired_pictures
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
    without a mask has no label. Masks have the size of their pictures, are held in memory and
    resized like them, without interpolation.

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
        ValueError: for a missing folder, a mask without a picture or of another size, and values
            that are not classes.
    """
    paired = paired_pictures(directories, root, MASKS, mode_options, on_broken)
    masks = paired.labels(partial(_mask, len(classes) if classes else math.inf))
    _as_binary(masks)
    names = classes or _index_names(masks)
    notes = paired.notes if classes else (*paired.notes, *_gaps(masks, paired))
    parts: dict[str, Samples] = {
        part: MaskedImages(paired.images(part, names), mask, names) for part, mask in masks.items()
    }
    return replace(splits(parts, validation, test), notes=notes)


def _mask(num_classes: float, file: Path) -> NDArray[np.int32]:
    """Class indices (H, W) of a file."""
    picture = Files((file,))(0)
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(
            f"{file}: a mask of mode {picture.mode}. Expected one channel or a palette, "
            "whose values are class indices"
        )
    mask = np.asarray(picture).astype(np.int32)
    wrong = mask[(mask >= num_classes) & (mask != VOID)]
    if wrong.size:
        raise ValueError(
            f"{file}: {wrong.size} pixels have no class, for example the value {wrong[0]}. "
            f"Expected class indices from 0 to {num_classes - 1:g}, or {VOID} for void. Change "
            "these pixels, or add their classes to classes"
        )
    return mask


def _values(masks: Mapping[str, Tensor]) -> list[int]:
    """Sorted values of all masks that are labels or void."""
    values: set[int] = set()
    for mask in masks.values():
        values.update(torch.unique(mask).tolist())
    return sorted(values - {UNLABELLED})


def _as_binary(masks: dict[str, Tensor]) -> None:
    """Replace 255 by the class 1 if 0 and 255 are the only values of all masks, in place."""
    if _values(masks) == [0, VOID]:
        for part, mask in masks.items():
            masks[part] = torch.where(mask == VOID, 1, mask)


def _index_names(masks: Mapping[str, Tensor]) -> list[str]:
    """Names of the classes up to the largest value that is not void."""
    values = [value for value in _values(masks) if value != VOID]
    if not values:
        raise ValueError(
            f"no pixel of the masks has a class: all have {VOID} (void). Expected class indices "
            "from 0"
        )
    return [str(index) for index in range(values[-1] + 1)]


def _gaps(masks: Mapping[str, Tensor], paired: PairedPictures) -> Iterator[str]:
    """Note on class indices below the largest one that no pixel has, such as for a stray value."""
    values = [value for value in _values(masks) if value != VOID]
    num_missing = values[-1] + 1 - len(values)
    if not num_missing:
        return
    files: list[Path | None] = []
    for part, mask in masks.items():
        has_largest = (mask == values[-1]).flatten(1).any(1)
        files += [paired.pairs[part][row][1] for row in has_largest.nonzero().flatten().tolist()]
    yield (
        f"masks: no pixel has {num_missing} of the {values[-1] + 1} classes. The largest value, "
        f"{values[-1]}, is in {len(files)} of the masks, for example in {files[0]}"
    )


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
    return MaskedImages(images, masks["train"], classes or _index_names(masks))
