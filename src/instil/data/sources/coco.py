"""Source ``coco``: pictures with boxes or keypoints, in the JSON format of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from typing_extensions import Doc

from instil.cards import suggestion
from instil.data.boxed_pictures import AnnotatedFiles, BoxedPictures
from instil.data.coco_annotations import AnnotatedPicture, Annotations, read_annotations
from instil.data.coco_files import AnnotationFiles, annotation_files, picture_file
from instil.data.images import LazyData
from instil.data.keypoint_pictures import PaddingOption, keypoint_pictures
from instil.data.picture_check import BrokenOption, check_one_size, readable_pictures
from instil.data.pictures import (
    BackgroundOption,
    ChannelsOption,
    Files,
    Pictures,
    SizeOption,
    pictures,
    upright,
)
from instil.data.samples import Samples
from instil.data.splits import Splits, TestOption, ValidationOption, splits

ByPart = dict[str, list[tuple[Path, AnnotatedPicture]]]
"""File and annotations of each picture, for each split."""


def coco(
    files: Annotated[
        str | dict[str, str],
        Doc("JSON file, or a file of each split (train, validation, test)"),
    ],
    folder: Annotated[
        str | dict[str, str] | None,
        Doc("folder of the pictures, or one of each split; null: the folder of the JSON file"),
    ] = None,
    size: SizeOption = None,
    channels: ChannelsOption = None,
    background: BackgroundOption = "white",
    broken: BrokenOption = "error",
    classes: Annotated[
        list[str] | None, Doc("names of the categories that are read; null: all of them")
    ] = None,
    padding: PaddingOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Pictures with boxes, for ``detection`` with ``kind: boxes``; for ``pose``, with keypoints.

    A JSON file has ``images``, ``annotations`` with ``bbox`` (left, top, width, height in pixels)
    and ``categories``. A picture without annotations has no object. With ``size``, boxes are
    resized like their pictures. Groups of objects (``iscrowd``) are not learned, and evaluations
    ignore what a detector finds there, as those of COCO do. Boxes without an area inside of their
    picture are left out with a note.

    For the task ``pose``, ``annotations`` have ``keypoints``, and ``categories`` their names. Each
    object is one image of ``size``, cut out around its box; see ``keypoint_pictures``.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe; ``pose`` reads keypoints.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing file, a file of another form, an unknown category, and unreadable
            pictures unless ``broken`` is ``skip``.
    """
    sources = annotation_files(files, folder, base)
    if task_name == "pose":
        options = {"channels": channels, "size": size, "background": background}
        return keypoint_pictures(sources, classes, options, padding, broken, validation, test)
    if padding is not None:
        raise ValueError("padding: only keypoints need it. Leave it out, or set task: pose")
    by_part, names, left_out = _read(sources)
    names = _chosen(names, classes)
    all_files: list[Path] = []
    for rows in by_part.values():
        all_files += [path for path, _ in rows]
    root = all_files[0].parent
    good, broken_notes = readable_pictures(all_files, root, broken)
    by_part = {part: [row for row in rows if row[0] in good] for part, rows in by_part.items()}
    first = Files((by_part["train"][0][0],)) if by_part.get("train") else Files(tuple(all_files))
    read = pictures(first, channels, size, background)
    check_one_size([path for path in all_files if path in good], read.size)
    parts: dict[str, Samples] = {
        part: _samples(rows, read, names) for part, rows in by_part.items()
    }
    return replace(splits(parts, validation, test), notes=(*left_out, *broken_notes))


def _read(files: AnnotationFiles) -> tuple[ByPart, list[str], tuple[str, ...]]:
    """Pictures of each split, the names of all categories, and notes about what is left out."""
    by_part: ByPart = {}
    names: dict[str, None] = {}
    contents: list[Annotations] = []
    for part, sources in files.items():
        by_part[part] = []
        for path, folder in sources:
            content = read_annotations(path)
            contents.append(content)
            names |= dict.fromkeys(content.classes)
            by_part[part] += [(picture_file(folder, each.name), each) for each in content.pictures]
    num_groups = sum(content.num_groups for content in contents)
    num_invisible = sum(content.num_invisible for content in contents)
    notes = []
    if num_groups:
        notes.append(
            f"{num_groups} groups of objects (iscrowd): not learned, and what a detector finds "
            "there does not count in evaluations"
        )
    if num_invisible:
        notes.append(f"left out: {num_invisible} boxes without an area inside of their picture")
    return by_part, list(names), tuple(notes)


def _chosen(names: Sequence[str], classes: list[str] | None) -> list[str]:
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
