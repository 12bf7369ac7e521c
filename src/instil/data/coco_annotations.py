"""Annotations of objects in the JSON format of COCO."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.annotated_pictures import AnnotatedPicture, is_visible


@dataclass
class Annotations:
    """Content of a file of annotations.

    Attributes:
        pictures: pictures in the order of the file.
        classes: names of the categories in the order of their ids.
        num_groups: number of groups of objects (``iscrowd``).
        num_invisible: number of boxes without an area inside of their picture, which are left out.
    """

    pictures: list[AnnotatedPicture]
    classes: list[str]
    num_groups: int = 0
    num_invisible: int = 0


def read_annotations(path: Path) -> Annotations:
    """Read a file with ``images``, ``annotations`` and ``categories``.

    Boxes without an area inside of their picture are left out.

    Args:
        path: JSON file.

    Raises:
        ValueError: for a file of another form, an unknown id, and a box without four numbers.
    """
    content = read_content(path)
    categories = entries_by_id(path, content, "categories", "name")
    names = [str(categories[identity]["name"]) for identity in sorted(categories)]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: categories: two have one name. Expected different names")
    images = entries_by_id(path, content, "images", "file_name")
    pictures = {
        identity: AnnotatedPicture(str(image["file_name"]), size_of(path, image))
        for identity, image in images.items()
    }
    result = Annotations(list(pictures.values()), names)
    for where, annotation in annotation_rows(path, content):
        picture = entry_of(where, "image_id", annotation, pictures)
        category = entry_of(where, "category_id", annotation, categories)
        box = edges_of(where, annotation.get("bbox"))
        if not is_visible(box, picture.size):
            result.num_invisible += 1
            continue
        picture.boxes.append(box)
        picture.classes.append(str(category["name"]))
        picture.is_group.append(bool(annotation.get("iscrowd")))
        result.num_groups += picture.is_group[-1]
    return result


def read_content(path: Path) -> dict[str, Any]:
    """Read a JSON file with the lists ``images``, ``annotations`` and ``categories``.

    Args:
        path: JSON file.

    Raises:
        ValueError: for a file of another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"files: {path} cannot be read as JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            present = ", ".join(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(
                f"{path}: no list '{key}'. Expected images, annotations and categories, as in "
                f"COCO, got {present}"
            )
    return content  # type: ignore[no-any-return]


def entries_by_id(path: Path, content: Mapping[str, Any], key: str, name: str) -> dict[Any, Any]:
    """Return the entries of a list by their id.

    Args:
        path: file of the content, for messages.
        content: content of the file.
        key: name of the list.
        name: field that each entry has in addition to ``id``.

    Raises:
        ValueError: for an empty list, an entry without these fields, and two with one id.
    """
    entries: dict[Any, Any] = {}
    for row, entry in enumerate(content[key]):
        where = f"{path}: {key}[{row}]"
        if not isinstance(entry, Mapping) or "id" not in entry or name not in entry:
            present = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
            raise ValueError(f"{where}: Expected id and {name}, got {present}")
        identity = entry["id"]
        if not isinstance(identity, (int, float, str)):
            raise ValueError(f"{where}.id: Expected a number or a text, got {identity}")
        if identity in entries:
            raise ValueError(
                f"{where}.id: {identity} is the id of {entries[identity][name]}, too. Expected a "
                "different id for each entry"
            )
        entries[identity] = entry
    if not entries:
        raise ValueError(f"{path}: {key}: the list is empty. Expected at least one entry")
    return entries


def entry_of(
    where: str, key: str, annotation: Mapping[str, Any], entries: Mapping[Any, Any]
) -> Any:
    """Return the entry with the id in a field of an annotation.

    Args:
        where: file and row of the annotation, for messages.
        key: field with the id.
        annotation: the annotation.
        entries: entries by id.

    Raises:
        ValueError: for an unknown id.
    """
    identity = annotation.get(key)
    if not isinstance(identity, (int, float, str)) or identity not in entries:
        raise ValueError(f"{where}.{key}: unknown id {identity}. Expected one of the file")
    return entries[identity]


def annotation_rows(
    path: Path, content: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the annotations, each with its file and row for messages.

    Args:
        path: file of the content.
        content: content of the file.

    Raises:
        ValueError: for an annotation that is not an object of JSON.
    """
    for row, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{row}]"
        if not isinstance(annotation, Mapping):
            raise ValueError(f"{where}: Expected image_id, category_id and bbox, got {annotation}")
        yield where, annotation


def size_of(path: Path, image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return width and height of an entry of ``images``, None if it does not have them.

    Args:
        path: file of the annotations, for messages.
        image: the entry.

    Raises:
        ValueError: for a width or height that is not a positive number.
    """
    width, height = image.get("width"), image.get("height")
    if width is None or height is None:
        return None
    if not (is_number(width) and is_number(height) and min(width, height) > 0):
        raise ValueError(
            f"{path}: images: width and height of {image['file_name']}: Expected positive "
            f"numbers, got {width} and {height}"
        )
    return float(width), float(height)


def edges_of(where: str, box: Any) -> list[float]:
    """Return the edges of a box that is given by its left and top edge, width and height.

    Args:
        where: file and row of the annotation, for messages.
        box: the four numbers.

    Raises:
        ValueError: for another form.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"{where}.bbox: Expected left, top, width and height, got {box}")
    left, top, width, height = map(float, box)
    return [left, top, left + width, top + height]


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)
