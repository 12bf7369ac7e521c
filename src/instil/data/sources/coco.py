"""Source ``coco``: pictures with boxes or keypoints, in the JSON format of COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from instil.data.annotated_pictures import (
    AnnotatedPicture,
    PictureOptions,
    boxed_splits,
    chosen_classes,
    invisible_note,
)
from instil.data.coco_annotations import Annotations, read_annotations
from instil.data.coco_files import AnnotationFiles, annotation_files, picture_file
from instil.data.keypoint_pictures import PaddingOption, keypoint_pictures
from instil.data.picture_check import BrokenOption, readable_pictures
from instil.data.pictures import BackgroundOption, ChannelsOption, SizeOption
from instil.data.splits import Splits, TestOption, ValidationOption

Pairs = dict[str, list[tuple[Path, AnnotatedPicture]]]
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
    names = chosen_classes(names, classes)
    paths: list[Path] = []
    for rows in by_part.values():
        paths += [path for path, _ in rows]
    good, broken_notes = readable_pictures(paths, paths[0].parent, broken)
    by_part = {part: [row for row in rows if row[0] in good] for part, rows in by_part.items()}
    read = PictureOptions(size, channels, background)
    notes = (*left_out, *broken_notes)
    return boxed_splits(by_part, names, read, notes, validation, test)


def _read(files: AnnotationFiles) -> tuple[Pairs, list[str], tuple[str, ...]]:
    """Pictures of each split, the names of all categories, and notes about what is left out."""
    by_part: Pairs = {}
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
        notes.append(invisible_note(num_invisible))
    return by_part, list(names), tuple(notes)
