"""Files of a data set in the format of YOLO: its description, pictures and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from instil.data.annotated_pictures import AnnotatedPicture, is_visible
from instil.data.picture_check import picture_size
from instil.data.pictures import picture_files

SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Split of each key of a description."""
IMAGES, LABELS = "images", "labels"
"""Folder of the pictures, and the folder next to it with their labels."""


def read_description(file: Path) -> tuple[list[str], dict[str, list[Path]]]:
    """Read the YAML file that describes a data set.

    Args:
        file: file with ``names``, a list or a mapping from index to name; ``train``, ``val`` and
            ``test``, each a folder of pictures, a text file with a picture per line, or a list of
            these; and ``path``, the folder that they start from. Without ``path``, it is that of
            the file.

    Returns:
        The class names, and the pictures of each split.

    Raises:
        ValueError: for a file of another form, and for folders or pictures that do not exist.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"file: {file} cannot be read as YAML: {problem}") from error
    if not isinstance(content, Mapping) or not content.get("train") or not content.get("names"):
        present = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no mapping"
        raise ValueError(f"{file}: Expected train, val and names, as in YOLO, got {present}")
    root = file.parent / str(content.get("path") or "")
    by_part = {
        part: _pictures(file, key, content[key], root)
        for key, part in SPLITS.items()
        if content.get(key)
    }
    return _names(file, content["names"]), by_part


def _names(file: Path, names: Any) -> list[str]:
    if isinstance(names, Mapping):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(
                f"{file}: names: Expected the indices 0 to {len(names) - 1}, got "
                f"{', '.join(map(str, names))}"
            )
        names = [names[index] for index in range(len(names))]
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: names: two are equal. Expected different names")
    return list(names)


def _pictures(file: Path, key: str, value: Any, root: Path) -> list[Path]:
    paths: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        path = root / str(entry)
        if path.is_dir():
            paths += picture_files(path)
        elif path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            paths += [path.parent / line.strip() for line in lines if line.strip()]
        else:
            raise ValueError(
                f"{file}: {key}: there is no {path}. Expected a folder of pictures or a text file "
                "with a picture per line. Set path to the folder of the data, relative to this file"
            )
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        problem = f"there is no picture {missing[0]}" if missing else f"{value} has no pictures"
        raise ValueError(f"{file}: {key}: {problem}. Expected at least one picture")
    return paths


def label_file(picture: Path) -> Path:
    """Return the file of the labels of a picture: ``labels/a.txt`` of ``images/a.jpg``.

    Args:
        picture: file of the picture. Its last folder ``images`` becomes ``labels``; without one,
            the labels are next to the picture.
    """
    parts = list(picture.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == IMAGES:
            parts[index] = LABELS
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(picture: Path, names: list[str]) -> tuple[AnnotatedPicture, int]:
    """Read the objects of a picture.

    A line has the index of a class, and centre, width and height of a box as fractions of the
    picture; or the corners of a polygon, whose box is read.

    Args:
        picture: file of the picture. Without a file of labels it has no objects.
        names: class names.

    Returns:
        The picture with boxes in pixels, and the number of boxes that were left out because they
        have no area inside of the picture.

    Raises:
        ValueError: for a line of another form.
    """
    width, height = picture_size(picture, is_upright=True)
    result = AnnotatedPicture(picture.name, (width, height))
    file = label_file(picture)
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    num_invisible = 0
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        index, edges = _parsed(f"{file}, line {row}", line, len(names))
        box = [edge * side for edge, side in zip(edges, (width, height) * 2, strict=True)]
        if not is_visible(box, result.size):
            num_invisible += 1
            continue
        result.boxes.append(box)
        result.classes.append(names[index])
        result.is_group.append(False)
    return result, num_invisible


def _parsed(where: str, line: str, num_classes: int) -> tuple[int, list[float]]:
    """Class, and left, top, right and bottom of a line, as fractions."""
    try:
        index, *numbers = [float(word) for word in line.split()]
    except ValueError as error:
        raise ValueError(f"{where}: Expected numbers, got {line.strip()[:80]}") from error
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(
            f"{where}: Expected a class and centre, width and height of a box, or the corners of a "
            f"polygon, got {1 + len(numbers)} numbers"
        )
    if index not in range(num_classes):
        raise ValueError(f"{where}: Expected a class from 0 to {num_classes - 1}, got {index:g}")
    if not all(0 <= value <= 1 for value in numbers):
        raise ValueError(f"{where}: Expected fractions of the picture, 0 to 1, got {numbers[:4]}")
    if len(numbers) == 4:
        x, y, width, height = numbers
        return int(index), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    x_all, y_all = numbers[::2], numbers[1::2]
    return int(index), [min(x_all), min(y_all), max(x_all), max(y_all)]
