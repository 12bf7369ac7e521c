"""Annotations of keypoints in the JSON format of COCO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.cards import suggestion
from instil.data.coco_annotations import (
    annotation_rows,
    edges_of,
    entries_by_id,
    entry_of,
    is_number,
    read_content,
    size_of,
)


@dataclass(frozen=True)
class AnnotatedObject:
    """An object with keypoints.

    Attributes:
        picture: path of the picture, relative to the folder of the pictures.
        size: width and height of the picture in the annotations; None if the file does not have
            them.
        box: left, top, right and bottom in pixels.
        keypoints: column, row and visibility (K, 3) in pixels; visibility 0 for no label.
        area: area in pixels; NaN if the file does not have it.
    """

    picture: str
    size: tuple[float, float] | None
    box: tuple[float, ...]
    keypoints: NDArray[np.float32]
    area: float


def read_keypoints(
    path: Path, classes: Sequence[str] | None
) -> tuple[list[AnnotatedObject], list[str], int]:
    """Read a file with ``images``, ``annotations`` and ``categories`` with ``keypoints``.

    Groups of objects (``iscrowd``), objects without a labelled keypoint and boxes without area are
    left out. COCO counts the columns and rows of keypoints from the centre of the first pixel, and
    the edges of boxes from its corner; half a pixel is added to keypoints.

    Args:
        path: JSON file.
        classes: names of the categories that are read; None: all with keypoints.

    Returns:
        The objects in the order of the file, the names of the keypoints, and the number of objects
        that were left out.

    Raises:
        ValueError: for a file of another form, another number of keypoints, and a file without an
            object that has a labelled keypoint.
    """
    content = read_content(path)
    categories = entries_by_id(path, content, "categories", "name")
    names = _keypoint_names(path, categories, classes)
    images = entries_by_id(path, content, "images", "file_name")
    objects: list[AnnotatedObject] = []
    num_left_out = 0
    for where, annotation in annotation_rows(path, content):
        category = entry_of(where, "category_id", annotation, categories)
        if annotation.get("iscrowd") or not _is_read(category, classes):
            continue
        image = entry_of(where, "image_id", annotation, images)
        keypoints = _keypoints(where, annotation.get("keypoints") or [0] * 3 * len(names), names)
        box = edges_of(where, annotation.get("bbox"))
        if not (keypoints[:, 2] > 0).any() or not (box[2] > box[0] and box[3] > box[1]):
            num_left_out += 1
            continue
        area = annotation.get("area", math.nan)
        area = float(area) if is_number(area) else math.nan
        name, size = str(image["file_name"]), size_of(path, image)
        objects.append(AnnotatedObject(name, size, tuple(box), keypoints, area))
    if not objects:
        raise ValueError(
            f"{path}: none of the {len(content['annotations'])} annotations has a labelled "
            "keypoint. Expected keypoints with a visibility of 1 or 2"
        )
    return objects, names, num_left_out


def _is_read(category: Mapping[str, Any], classes: Sequence[str] | None) -> bool:
    if classes is not None:
        return str(category["name"]) in classes
    return bool(category.get("keypoints"))


def _keypoint_names(
    path: Path, categories: Mapping[Any, Any], classes: Sequence[str] | None
) -> list[str]:
    """Names of the keypoints, which all categories that are read share."""
    present = [str(category["name"]) for category in categories.values()]
    for name in classes or ():
        if name not in present:
            raise ValueError(
                f"classes: {path} has no category '{name}'.{suggestion(name, present)}"
            )
    read = [category for category in categories.values() if _is_read(category, classes)]
    names = [str(name) for name in (read[0].get("keypoints") or ())] if read else []
    if not names:
        near = [other.name for other in path.parent.glob("*keypoints*.json") if other != path]
        raise ValueError(
            f"{path}: categories: {', '.join(classes or present)} without the names of keypoints. "
            f"Expected a list 'keypoints', as in COCO.{suggestion(path.name, near)}"
        )
    for category in read:
        if list(category.get("keypoints") or ()) != names:
            raise ValueError(
                f"{path}: categories: {read[0]['name']} and {category['name']} have different "
                "keypoints. Expected one list of names. Choose categories with classes"
            )
    return names


def _keypoints(where: str, values: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Keypoints (K, 3) of an annotation, from the corner of the first pixel."""
    numbers = list(filter(is_number, values)) if isinstance(values, list) else []
    if len(numbers) != 3 * len(names) or len(numbers) != len(values):
        raise ValueError(
            f"{where}.keypoints: Expected {3 * len(names)} numbers, column, row and visibility of "
            f"{len(names)} keypoints ({', '.join(names[:3])}, ...), got {len(numbers)}"
        )
    keypoints = np.array(values, dtype=np.float32).reshape(-1, 3)
    keypoints[:, :2] += 0.5
    return keypoints
