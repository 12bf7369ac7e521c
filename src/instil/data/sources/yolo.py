"""Source ``yolo``: pictures with boxes, in the text files of YOLO."""

from __future__ import annotations

import itertools
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
from instil.data.paths import located
from instil.data.picture_check import BrokenOption, readable_pictures
from instil.data.pictures import BackgroundOption, ChannelsOption, SizeOption
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.yolo_files import label_file, read_description, read_labels


def yolo(
    file: Annotated[str, Doc("YAML file that describes the data, such as coco8.yaml")],
    size: SizeOption = None,
    channels: ChannelsOption = None,
    background: BackgroundOption = "white",
    broken: BrokenOption = "error",
    classes: Annotated[
        list[str] | None, Doc("names of the classes that are read; null: all of them")
    ] = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Pictures with boxes, for ``detection`` with ``kind: boxes``.

    The file has ``names``, ``train``, ``val``, ``test`` and ``path``, as those of ultralytics; see
    ``instil.data.yolo_files.read_description``. The labels of ``images/train/a.jpg`` are in
    ``labels/train/a.txt``: a line per object with its class, and centre, width and height as
    fractions of the picture, or the corners of a polygon, whose box is read. A picture without a
    file of labels has no objects. With ``size``, boxes are resized like their pictures.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data. Without ``test``, a share of the training data is held out.

    Raises:
        ValueError: for a missing file, a file of another form, an unknown class, and unreadable
            pictures unless ``broken`` is ``skip``.
    """
    path = located(file, base)
    names, files = read_description(path)
    whole = list(itertools.chain.from_iterable(files.values()))
    # Sizes of pictures are read next, so the unreadable ones are left out here.
    good, notes = readable_pictures(whole, whole[0].parent, broken)
    by_part: dict[str, list[tuple[Path, AnnotatedPicture]]] = {}
    num_invisible = num_without = 0
    for part, pictures in files.items():
        without = {picture for picture in pictures if not label_file(picture).is_file()}
        if len(without) == len(set(pictures)):
            raise ValueError(
                f"{path}: {part}: no picture has labels. Expected a file such as "
                f"{label_file(pictures[0])}"
            )
        readable = [picture for picture in pictures if picture in good]
        num_without += sum(picture in without for picture in readable)
        by_part[part] = []
        for picture in readable:
            annotated, invisible = read_labels(picture, names)
            by_part[part].append((picture, annotated))
            num_invisible += invisible
    if num_invisible:
        notes += (invisible_note(num_invisible),)
    if num_without:
        notes += (f"{num_without} pictures without a file of labels: they have no objects",)
    read = PictureOptions(size, channels, background)
    return boxed_splits(by_part, chosen_classes(names, classes), read, notes, validation, test)
