"""A folder of pictures, sorted into one folder a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from instil.core import closest
from instil.data.images import ImageData, LazyData
from instil.data.paths import located
from instil.data.pictures import Files, Size, extensions, pictures
from instil.data.splits import Splits, splits

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


def folder(
    path: str,
    size: Size = None,
    channels: int | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    base: Path = Path(),
) -> Splits:
    """``path/class/picture.png``, or ``path/train/class/picture.png`` beside ``validation`` (or ``val``) and ``test``.

    Classes are the folders' names in alphabetical order. Pictures are decoded when they are asked for, in grey or colour as the first one
    (or 1 or 3 ``channels``), resized to ``size`` (one number, or height and width). Shares ``validation`` and ``test`` of train are held out where
    there is no such folder. Files that are no pictures by their extension are ignored.

    Raises ValueError for a missing or empty folder, a class without pictures, and a broken picture when it is read, each with its name.
    """
    root = located(path, base)
    if not root.is_dir():
        raise ValueError(f"{root} is a file, not a folder of pictures")
    named = {
        name: root / entry
        for name, entries in NAMES.items()
        for entry in entries
        if (root / entry).is_dir()
    }
    places = named if "train" in named else {"train": root}
    classes = _folders(places["train"])
    if not classes:
        raise ValueError(
            f"{places['train'].resolve()} has no folders; expected one a class, with its pictures inside"
        )
    files = {name: _files(place, classes) for name, place in places.items()}
    mode = pictures(Files(files["train"][0]), channels, size)
    parts: dict[str, ImageData] = {
        name: LazyData(replace(mode, open=Files(paths)), torch.tensor(label), classes)
        for name, (paths, label) in files.items()
    }
    return splits(parts, validation, test)


def _folders(place: Path) -> list[str]:
    return sorted(
        entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _files(place: Path, classes: list[str]) -> tuple[tuple[Path, ...], list[int]]:
    """The pictures below ``place`` and their class numbers."""
    known, paths, label = extensions(), [], []
    for name in _folders(place):
        if name not in classes:
            raise ValueError(
                f"{place / name}: there is no class '{name}' in train; {closest(name, classes)}"
            )
        found = sorted(
            file
            for file in (place / name).rglob("*")
            if file.suffix.lower() in known and not file.name.startswith(".")
        )
        if not found:
            raise ValueError(f"the class folder {place / name} has no pictures")
        paths += found
        label += [classes.index(name)] * len(found)
    return tuple(paths), label
