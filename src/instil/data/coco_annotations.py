"""Annotations of objects in the JSON format of COCO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class AnnotatedPicture:
    """A picture and its objects.

    Attributes:
        name: path of the file, relative to the folder of the pictures.
        size: width and height in the annotations; None if the file does not have them.
        boxes: left, top, right and bottom of each object, in pixels.
        classes: name of the class of each object.
    """

    name: str
    size: tuple[float, float] | None
    boxes: list[list[float]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


def read_annotations(path: Path) -> tuple[list[AnnotatedPicture], list[str]]:
    """Read a file with ``images``, ``annotations`` and ``categories``.

    Groups of objects (``iscrowd``) are left out.

    Args:
        path: JSON file.

    Returns:
        The pictures in the order of the file, and the names of the categories in the order of
        their ids.

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
        identity: AnnotatedPicture(str(image["file_name"]), size_of(image))
        for identity, image in images.items()
    }
    for row, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{row}]"
        if annotation.get("iscrowd"):
            continue
        picture = entry_of(where, "image_id", annotation, pictures)
        category = entry_of(where, "category_id", annotation, categories)
        box = edges_of(where, annotation.get("bbox"))
        # Torchvision refuses boxes without area.
        if box[2] > box[0] and box[3] > box[1]:
            picture.boxes.append(box)
            picture.classes.append(str(category["name"]))
    return list(pictures.values()), names


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
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
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
        ValueError: for an empty list, and an entry without these fields.
    """
    entries: dict[Any, Any] = {}
    for row, entry in enumerate(content[key]):
        if "id" not in entry or name not in entry:
            raise ValueError(
                f"{path}: {key}[{row}]: Expected id and {name}, got {', '.join(entry)}"
            )
        entries[entry["id"]] = entry
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
    if identity not in entries:
        raise ValueError(f"{where}.{key}: unknown id {identity}. Expected one of the file")
    return entries[identity]


def size_of(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return width and height of an entry of ``images``, None if it does not have them."""
    if "width" not in image or "height" not in image:
        return None
    return float(image["width"]), float(image["height"])


def edges_of(where: str, box: Any) -> list[float]:
    """Return the edges of a box that is given by its left and top edge, width and height.

    Args:
        where: file and row of the annotation, for messages.
        box: the four numbers.

    Raises:
        ValueError: for another form.
    """
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"{where}.bbox: Expected left, top, width and height, got {box}")
    left, top, width, height = map(float, box)
    return [left, top, left + width, top + height]
