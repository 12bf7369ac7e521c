"""Objects with keypoints, cut out of pictures with annotations of COCO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.coco_files import AnnotationFiles, picture_file
from instil.data.cropped_pictures import CroppedPictures, padded_crop
from instil.data.images import LazyData
from instil.data.keypoint_annotations import AnnotatedObject, read_keypoints
from instil.data.keypoint_images import KeypointImages
from instil.data.picture_check import readable_pictures
from instil.data.pictures import Files, Pictures, pictures
from instil.data.samples import Samples
from instil.data.splits import Splits, splits

PADDING = 1.25
"""Default side of the part of a picture around an object, over the side of its box."""

PaddingOption = Annotated[
    Annotated[float, Gt(0)] | None,
    Doc("for keypoints, side of the part around a box over the side of the box; null: 1.25"),
]

Row = tuple[Path, AnnotatedObject]
"""Picture file and object."""


def keypoint_pictures(
    files: AnnotationFiles,
    classes: Sequence[str] | None,
    mode_options: Mapping[str, Any],
    padding: float | None,
    on_broken: str,
    validation: float,
    test: float,
) -> Splits:
    """Read objects with keypoints; each is one image, cut out around its box.

    The part of the picture has the aspect ratio of ``size``. A batch has ``area``, the area of the
    object in pixels of the image, if the annotations have it; ``picture`` (N,), the index of the
    picture; and ``crop`` (N, 4), the edges of the part in the picture.

    Args:
        files: JSON file and folder of its pictures, for each split.
        classes: names of the categories that are read; None: all with keypoints.
        mode_options: ``channels``, ``size`` and ``background`` of the pictures.
        padding: side of the part over the side of the box; None: 1.25.
        on_broken: ``error`` or ``skip``.
        validation: share of the training data for a missing validation split; the objects of a
            picture stay in one split.
        test: share of the training data for a missing test split.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: without a size, for a missing file, a file of another form, splits with
            different keypoints, and unreadable pictures unless ``on_broken`` is ``skip``.
    """
    by_part, names, notes = _read(files, classes)
    all_files: list[Path] = []
    for rows in by_part.values():
        all_files += dict.fromkeys(path for path, _ in rows)
    good, broken_notes = readable_pictures(all_files, all_files[0].parent, on_broken)
    by_part = {part: [row for row in rows if row[0] in good] for part, rows in by_part.items()}
    first = Files((by_part["train"][0][0],)) if by_part.get("train") else Files(tuple(all_files))
    read = pictures(first, **mode_options)
    if read.size is None:
        raise ValueError(
            "size: the objects differ in size. Expected [height, width] of their images, such as "
            "[256, 192]"
        )
    factor = PADDING if padding is None else padding
    parts: dict[str, Samples] = {
        part: _samples(rows, read, names, factor) for part, rows in by_part.items()
    }
    # Parts around two objects of one picture may overlap.
    group = [path for path, _ in by_part.get("train", ())]
    divided = splits(parts, validation, test, group)
    return replace(divided, notes=(*notes, *broken_notes))


def _read(
    files: AnnotationFiles, classes: Sequence[str] | None
) -> tuple[dict[str, list[Row]], list[str], tuple[str, ...]]:
    """Objects of each split, the names of the keypoints, and notes."""
    by_part: dict[str, list[Row]] = {}
    names: list[str] = []
    first_path, num_left_out = Path(), 0
    for part, sources in files.items():
        by_part[part] = []
        for path, folder in sources:
            objects, path_names, count = read_keypoints(path, classes)
            num_left_out += count
            if not names:
                first_path, names = path, path_names
            if path_names != names:
                raise ValueError(
                    f"{path}: categories: the keypoints differ from those of {first_path}. "
                    f"Expected {', '.join(names)}, got {', '.join(path_names)}"
                )
            pictures_used = {entry.picture for entry in objects}
            paths = {name: picture_file(folder, name) for name in pictures_used}
            by_part[part] += [(paths[entry.picture], entry) for entry in objects]
    note = f"{num_left_out} objects without a labelled keypoint are left out"
    return by_part, names, (note,) if num_left_out else ()


def _samples(
    rows: Sequence[Row], read: Pictures, names: Sequence[str], padding: float
) -> KeypointImages:
    """Objects of one split, with keypoints and areas in pixels of their images."""
    height, width = read.size or (0, 0)
    crops = [padded_crop(entry.box, (height, width), padding) for _, entry in rows]
    whole = replace(read, open=Files(tuple(path for path, _ in rows)), size=None)
    picture_sizes = [entry.size for _, entry in rows]
    reader = CroppedPictures(whole, crops, (height, width), picture_sizes)
    edges = np.array(crops).reshape(-1, 4)
    factors = np.array([width, height]) / (edges[:, 2:] - edges[:, :2])
    keypoints = np.stack([entry.keypoints for _, entry in rows])
    position = (keypoints[..., :2] - edges[:, None, :2]) * factors[:, None]
    position[keypoints[..., 2] == 0] = UNLABELLED
    index_of = {path: index for index, path in enumerate(dict.fromkeys(path for path, _ in rows))}
    entries = {
        "picture": torch.tensor([index_of[path] for path, _ in rows]),
        "crop": torch.from_numpy(edges).float(),
    }
    area = np.array([entry.area for _, entry in rows]) * factors.prod(1)
    if not np.isnan(area).all():
        entries["area"] = torch.from_numpy(area).float()
    images = LazyData(reader, torch.zeros(len(rows), dtype=torch.int64), names)
    return KeypointImages(images, torch.from_numpy(position), names, entries=entries)
