"""Images with the class of every pixel: from pictures beside their masks, or from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.images import ArrayData, LazyData
from instil.data.picture_check import readable_pictures
from instil.data.pictures import Files, picture_files, pictures
from instil.data.samples import Facts, Samples
from instil.data.splits import Splits, splits

VOID = 255
"""Value of pixels in a mask that nothing learns from."""


class MaskedImages(Samples):
    """Images whose label is the class of every pixel, int64 (N, H, W).

    A pixel with the value 255 is void: its ``valid`` is False. An image without a mask has the label -100
    everywhere and stays valid, so that a student can learn from a teacher on it.

    Args:
        images: the images, in memory or decoded on demand; their own labels are not read.
        mask: class indices (N, H, W), 255 for void and -100 for no label.
        classes: names of the classes.
    """

    noun = "image"

    def __init__(
        self,
        images: ArrayData | LazyData,
        mask: Tensor,
        classes: Sequence[str],
        index: Tensor | None = None,
    ):
        if mask.ndim != 3 or len(mask) != len(images) or mask.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"masks have the shape {tuple(mask.shape)}. Expected (N, H, W) = "
                f"{(len(images), *images.shape[1:])}, as the images have"
            )
        self.images = images
        is_void = mask == VOID if len(classes) <= VOID else torch.zeros_like(mask, dtype=torch.bool)
        self.valid = ~is_void
        super().__init__(mask.masked_fill(is_void, UNLABELLED), classes, index)

    @property
    def facts(self) -> Facts:
        """``classes``, ``channels`` and ``size``: one number for square images, else (H, W)."""
        return self.images.facts | {"classes": len(self.classes)}

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": self.images.images(rows), "valid": self.valid[rows]}

    def _take(self, rows: Tensor) -> None:
        self.images, self.valid = self.images.subset(rows), self.valid[rows]

    def _checked(self, label: Tensor) -> Tensor:
        return self._class_numbers(label)


def masked_pictures(
    places: Mapping[str, Path],
    root: Path,
    mode_options: Mapping[str, Any],
    classes: Sequence[str] | None,
    on_broken: str,
    validation: float,
    test: float,
) -> Splits:
    """Pictures in ``images/`` and their masks in ``masks/``, with the same names but for the extension.

    A mask is a picture of one channel or a palette whose values are class indices; 255 is void. Where
    0 and 255 are the only values of all masks, they are the classes 0 and 1. A picture without
    a mask has no label. Masks are kept in memory, and resized like their pictures.

    Args:
        places: folder of each split.
        root: folder of the data.
        mode_options: ``channels``, ``size`` and ``background`` of the pictures.
        classes: names of the classes; by default their indices.
        on_broken: ``error`` or ``skip``.
        validation: share of train to validate on, where there is no such split.
        test: share of train to test on, where there is no such split.

    Raises:
        ValueError: for a missing folder, a mask without a picture, and values that are no classes.
    """
    pairs = {part: _pairs(place) for part, place in places.items()}
    files = [file for part in pairs.values() for pair in part for file in pair if file is not None]
    good, notes = readable_pictures(files, root, on_broken)
    pairs = {
        part: [pair for pair in found if good.issuperset(file for file in pair if file is not None)]
        for part, found in pairs.items()
    }
    read = pictures(Files((pairs["train"][0][0],)), **mode_options)
    masks = {part: _masks(found, read.size) for part, found in pairs.items()}
    _as_binary(masks)
    names = classes or _index_names(masks.values())
    parts: dict[str, Samples] = {}
    for part, found in pairs.items():
        opened = replace(read, open=Files(tuple(image for image, _ in found)))
        images = LazyData(opened, torch.zeros(len(found), dtype=torch.int64), names)
        parts[part] = MaskedImages(images, masks[part], names)
    return replace(splits(parts, validation, test), notes=notes)


def _pairs(place: Path) -> list[tuple[Path, Path | None]]:
    """Each picture with its mask, None where there is none."""
    images, masks = place / "images", place / "masks"
    for folder in (images, masks):
        if not folder.is_dir():
            raise ValueError(
                f"{place}: there is no folder '{folder.name}'. "
                "Expected images/ and masks/ for the task segmentation"
            )
    of_name = {file.relative_to(masks).with_suffix(""): file for file in picture_files(masks)}
    pairs = [
        (file, of_name.pop(file.relative_to(images).with_suffix(""), None))
        for file in picture_files(images)
    ]
    if of_name:
        raise ValueError(f"{next(iter(of_name.values()))}: there is no picture of this name")
    if not any(mask is not None for _, mask in pairs):
        raise ValueError(f"{images}: no picture has a mask")
    return pairs


def _masks(pairs: Sequence[tuple[Path, Path | None]], size: tuple[int, int] | None) -> Tensor:
    arrays = [None if mask is None else _mask(mask, size) for _, mask in pairs]
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) > 1:
        raise ValueError(
            f"masks differ in size, for example {sorted(shapes)[0]} and {sorted(shapes)[-1]}; "
            "give `size` to resize pictures and masks"
        )
    empty = np.full(next(iter(shapes)), UNLABELLED, np.int64)
    return torch.from_numpy(np.stack([empty if array is None else array for array in arrays]))


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
    """Make 255 the class 1 where all masks hold nothing but 0 and 255."""
    values = {value for mask in masks.values() for value in torch.unique(mask).tolist()}
    values -= {UNLABELLED}
    if values == {0, VOID}:
        for part, mask in masks.items():
            masks[part] = torch.where(mask == VOID, 1, mask)


def _index_names(masks: Any) -> list[str]:
    """Class indices up to the largest one that is not void."""
    largest = max(int(mask[mask != VOID].max()) for mask in masks)
    return [str(index) for index in range(largest + 1)]


def masked_arrays(
    images: ArrayData | LazyData, mask: Tensor, classes: Sequence[str] | None
) -> MaskedImages:
    """Images with their masks (N, H, W) from memory; values as in the masks of pictures.

    Args:
        images: the images.
        mask: class indices, 255 for void, -100 for no label.
        classes: names of the classes; by default their indices.
    """
    masks = {"train": mask.to(torch.int64)}
    _as_binary(masks)
    return MaskedImages(images, masks["train"], classes or _index_names(masks.values()))
