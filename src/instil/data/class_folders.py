"""Folders of data sets with one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from instil.cards import suggestion

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
"""Names of the folder of each split; the last one that exists is used."""
WITHOUT_LABEL = ("unlabelled", "unlabeled")
"""Names of a folder, next to those of the classes, with unlabelled samples."""


def split_directories(root: Path) -> dict[str, Path]:
    """Return the folder of each split; a root without a train folder is the training data.

    Args:
        root: folder of the data set.
    """
    directories = {}
    for part, entries in NAMES.items():
        for entry in entries:
            if (root / entry).is_dir():
                directories[part] = root / entry
    return directories if "train" in directories else {"train": root}


def class_names(directory: Path) -> list[str]:
    """Return the sorted names of the class folders of a directory.

    Args:
        directory: folder of a split.
    """
    return sorted(
        entry.name
        for entry in directory.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in WITHOUT_LABEL
    )


def check_classes(directory: Path, names: Sequence[str]) -> list[str]:
    """Return the classes of a split; each must be a class of the training data.

    Args:
        directory: folder of the split.
        names: classes of the training data.

    Raises:
        ValueError: for a class that the training data lack.
    """
    own = class_names(directory)
    for name in own:
        if name not in names:
            raise ValueError(
                f"path: train has no class '{name}'. Expected a class of train, got the folder "
                f"{directory / name}.{suggestion(name, names)}"
            )
    return own
