"""A folder of pictures: one folder a class, or pictures beside their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from typing_extensions import Doc

from instil.core import UNLABELLED, closest
from instil.data.images import LazyData
from instil.data.masks import masked_pictures
from instil.data.paths import located
from instil.data.picture_check import BrokenOption, readable_pictures
from instil.data.pictures import (
    BackgroundOption,
    ChannelsOption,
    Files,
    SizeOption,
    picture_files,
    pictures,
)
from instil.data.samples import Samples
from instil.data.splits import Splits, TestOption, ValidationOption, splits

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
WITHOUT_LABEL = ("unlabelled", "unlabeled")
"""Names of the folder, beside the classes, with pictures that have no label."""

Labelled = tuple[tuple[Path, ...], list[int]]
"""Picture files with the class index of each."""


def folder(
    path: Annotated[str, Doc("the folder, seen from the recipe or from where the command runs")],
    size: SizeOption = None,
    channels: ChannelsOption = None,
    background: BackgroundOption = "white",
    broken: BrokenOption = "error",
    classes: Annotated[
        list[str] | None, Doc("names of the classes of masks, in the order of their values")
    ] = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Pictures in one folder a class, or with masks for the task ``segmentation``.

    ``PATH/class/picture.png``, or ``PATH/train/class/picture.png`` beside ``validation`` (or ``val``)
    and ``test``. Classes are the names of the folders in alphabetical order. A folder
    ``unlabelled`` (or ``unlabeled``) beside the class folders has pictures without a label.
    Masks: ``images/name.png`` and ``masks/name.png``, in ``PATH`` or in ``PATH/train``; see ``masked_pictures``.

    Pictures are decoded when they are read; every file is checked before. Files that are no
    pictures by their extension are ignored.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing or empty folder, a class without pictures, and files that cannot
            be read unless ``broken`` is ``skip``.
    """
    root = located(path, base)
    if not root.is_dir():
        raise ValueError(f"{root} is a file, not a folder of pictures")
    places = _places(root)
    mode_options = {"channels": channels, "size": size, "background": background}
    if task_name == "segmentation":
        return masked_pictures(places, root, mode_options, classes, broken, validation, test)
    if classes is not None:
        raise ValueError("classes: folders of classes have their own names. Expected masks")
    names = _class_folders(places["train"])
    if not names:
        raise ValueError(
            f"{places['train'].resolve()} has no folders; expected one a class, with its pictures inside"
        )
    _check_no_unlabelled([place for part, place in places.items() if part != "train"])
    files = {part: _files(place, names) for part, place in places.items()}
    files["train"] = _with_unlabelled(files["train"], [places["train"], root])
    files, notes = _readable(files, root, broken)
    mode = pictures(Files(files["train"][0]), channels, size, background)
    parts: dict[str, Samples] = {
        part: LazyData(replace(mode, open=Files(paths)), torch.tensor(label), names)
        for part, (paths, label) in files.items()
    }
    return replace(splits(parts, validation, test), notes=notes)


def _places(root: Path) -> dict[str, Path]:
    """Folder of each split; the root alone is the training data."""
    named = {
        part: root / entry
        for part, entries in NAMES.items()
        for entry in entries
        if (root / entry).is_dir()
    }
    return named if "train" in named else {"train": root}


def _class_folders(place: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in place.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in WITHOUT_LABEL
    )


def _files(place: Path, classes: Sequence[str]) -> Labelled:
    """Pictures below ``place`` with their class index."""
    paths: list[Path] = []
    label: list[int] = []
    for name in _class_folders(place):
        if name not in classes:
            raise ValueError(
                f"{place / name}: there is no class '{name}' in train; {closest(name, classes)}"
            )
        of_class = picture_files(place / name)
        if not of_class:
            raise ValueError(f"the class folder {place / name} has no pictures")
        paths += of_class
        label += [classes.index(name)] * len(of_class)
    return tuple(paths), label


def _check_no_unlabelled(places: Sequence[Path]) -> None:
    for place in places:
        for entry in WITHOUT_LABEL:
            if (place / entry).is_dir():
                raise ValueError(
                    f"{place / entry}: pictures without a label cannot be judged. "
                    "Expected them in train"
                )


def _with_unlabelled(labelled: Labelled, places: Sequence[Path]) -> Labelled:
    """The labelled pictures, then those of the folders without labels."""
    paths, label = labelled
    folders = {place / entry for place in places for entry in WITHOUT_LABEL}
    for place in sorted(one for one in folders if one.is_dir()):
        unlabelled = picture_files(place)
        if not unlabelled:
            raise ValueError(f"the folder {place} has no pictures")
        paths = (*paths, *unlabelled)
        label = [*label, *[UNLABELLED] * len(unlabelled)]
    return paths, label


def _readable(
    files: dict[str, Labelled], root: Path, on_broken: str
) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """The files that can be read, and a note on the others."""
    paths = [path for paths, _ in files.values() for path in paths]
    good_paths, notes = readable_pictures(paths, root, on_broken)
    readable: dict[str, Labelled] = {}
    for part, (part_paths, label) in files.items():
        rows = [row for row, path in enumerate(part_paths) if path in good_paths]
        readable[part] = tuple(part_paths[row] for row in rows), [label[row] for row in rows]
    return readable, notes
