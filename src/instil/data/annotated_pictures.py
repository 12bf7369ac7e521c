"""Pictures with annotated objects, whatever the format of the annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from instil.cards import suggestion
from instil.data.boxed_pictures import AnnotatedFiles, BoxedPictures
from instil.data.images import LazyData
from instil.data.picture_check import check_one_size
from instil.data.pictures import Files, Pictures, Size, pictures, upright
from instil.data.samples import Samples
from instil.data.splits import Splits, splits

SMALLEST_SIDE = 0.01
"""Smallest side of a box in pixels; in float32, thinner ones may have no area."""


@dataclass
class AnnotatedPicture:
    """A picture and its objects.

    Attributes:
        name: path of the file, relative to the folder of the pictures.
        size: width and height in the annotations; None if the file does not have them.
        boxes: left, top, right and bottom of each object, or group of objects, in pixels.
        classes: name of the class of each object.
        is_group: whether each box is that of a group of objects (``iscrowd``).
    """

    name: str
    size: tuple[float, float] | None
    boxes: list[list[float]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    is_group: list[bool] = field(default_factory=list)


ByPart = Mapping[str, Sequence[tuple[Path, AnnotatedPicture]]]
"""File and annotations of each picture, for each split."""


@dataclass(frozen=True)
class PictureOptions:
    """Options that read the pictures of a source, with the meaning that they have there."""

    size: Size
    channels: int | None
    background: str


def is_visible(box: Sequence[float], size: tuple[float, float] | None) -> bool:
    """Return whether a part of a box with an area lies in the picture.

    Args:
        box: left, top, right and bottom.
        size: width and height of the picture; None if they are unknown.
    """
    left, top, right, bottom = box
    # Torchvision refuses boxes without area.
    if min(right - left, bottom - top) < SMALLEST_SIDE:
        return False
    width, height = size or (math.inf, math.inf)
    return right > 0 and bottom > 0 and left < width and top < height


def invisible_note(count: int) -> str:
    """Return the note about boxes that are not visible."""
    return f"left out: {count} boxes without an area inside of their picture"


def boxed_splits(
    by_part: ByPart,
    classes: Sequence[str],
    options: PictureOptions,
    notes: Sequence[str],
    validation: float,
    test: float,
) -> Splits:
    """Return the samples of annotated pictures.

    Args:
        by_part: readable pictures of each split.
        classes: names of the classes that are read.
        options: how the pictures are read.
        notes: notes about what was left out before.
        validation: share of the training data for validation, without a split of its own.
        test: the same for test.

    Raises:
        ValueError: without a picture, and for pictures of different sizes that are not resized.
    """
    files: list[Path] = []
    for rows in by_part.values():
        files += [path for path, _ in rows]
    if not files:
        raise ValueError("no picture can be read. Expected at least one")
    train = by_part.get("train")
    first = Files((train[0][0],)) if train else Files(tuple(files))
    read = pictures(first, options.channels, options.size, options.background)
    check_one_size(files, read.size)
    parts: dict[str, Samples] = {
        part: _samples(rows, read, classes) for part, rows in by_part.items()
    }
    return replace(splits(parts, validation, test), notes=tuple(notes))


def chosen_classes(names: Sequence[str], classes: list[str] | None) -> list[str]:
    """Return the classes that are read.

    Args:
        names: names of all classes.
        classes: names of those that a recipe chooses; None: all.

    Raises:
        ValueError: for an unknown name, a name twice, and an empty list.
    """
    if classes is None:
        return list(names)
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(
            f"classes: Expected different names of categories, such as {names[0]}, got {classes}"
        )
    for name in classes:
        if name not in names:
            raise ValueError(
                f"classes: the files have no category '{name}'.{suggestion(name, names)}"
            )
    return classes


def _samples(
    rows: Sequence[tuple[Path, AnnotatedPicture]], read: Pictures, names: Sequence[str]
) -> BoxedPictures:
    """Pictures of one split, with their boxes in the size of the pictures."""
    sizes = tuple(picture.size for _, picture in rows)
    reader = replace(read, open=AnnotatedFiles(tuple(path for path, _ in rows), sizes))
    objects: list[tuple[torch.Tensor, list[int]]] = []
    groups: list[tuple[torch.Tensor, list[int]]] = []
    for row, (_, picture) in enumerate(rows):
        factors = _factors(picture, reader, row)
        objects.append(_of_kind(picture, names, factors, is_group=False))
        groups.append(_of_kind(picture, names, factors, is_group=True))
    images = LazyData(reader, torch.zeros(len(rows), dtype=torch.int64), names)
    boxes, labels = [box for box, _ in objects], [label for _, label in objects]
    return BoxedPictures(images, boxes, labels, names, groups)


def _of_kind(
    picture: AnnotatedPicture, names: Sequence[str], factors: torch.Tensor, is_group: bool
) -> tuple[torch.Tensor, list[int]]:
    """Resized boxes (k, 4) and class indices of the objects, or of the groups of objects."""
    kinds = zip(picture.classes, picture.is_group, strict=True)
    chosen = [i for i, (name, kind) in enumerate(kinds) if name in names and kind == is_group]
    box = torch.tensor([picture.boxes[index] for index in chosen]).reshape(-1, 4) * factors
    return box, [names.index(picture.classes[index]) for index in chosen]


def _factors(picture: AnnotatedPicture, reader: Pictures, row: int) -> torch.Tensor:
    """Size of a resized picture over its size in the annotations, for each edge of a box."""
    if reader.size is None:
        return torch.ones(4)
    width, height = picture.size or upright(reader.open(row)).size
    horizontal, vertical = reader.size[1] / width, reader.size[0] / height
    return torch.tensor([horizontal, vertical, horizontal, vertical])
