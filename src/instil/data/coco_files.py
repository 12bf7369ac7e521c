"""Files of annotations in the format of COCO, and of their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from instil.cards import suggestion
from instil.data.paths import located
from instil.data.tables import files_of

AnnotationFiles = dict[str, list[tuple[Path, Path]]]
"""JSON file and folder of its pictures, for each split."""

WORDS = {"train": "train", "val": "validation", "test": "test"}
"""Split of each word in the name of a file, such as ``person_keypoints_val2017.json``."""


def annotation_files(
    files: str | dict[str, str], folders: str | dict[str, str] | None, base: Path
) -> AnnotationFiles:
    """Return the JSON files of each split, with the folders of their pictures.

    Args:
        files: JSON file, or a file of each split.
        folders: folder of the pictures, or one of each split; None: the folder of the JSON file.
        base: folder that relative paths start from.

    Raises:
        ValueError: for a missing file or folder.
    """
    by_part: AnnotationFiles = {}
    paths = files_of(dict(files) if isinstance(files, dict) else files, base)
    for part, part_paths in paths.items():
        by_part[part] = [(path, _folder(folders, part, path, base)) for path in part_paths]
    return by_part


def keypoint_files(root: Path) -> AnnotationFiles:
    """Return the files ``annotations/*keypoints*.json`` of a folder, as COCO names them.

    The pictures of ``person_keypoints_val2017.json`` are in ``val2017``, ``images/val2017``,
    ``images`` or the folder itself.

    Args:
        root: folder of the data.

    Raises:
        ValueError: without such a file, and for two files of one split.
    """
    folder = root / "annotations"
    paths = sorted(folder.glob("*keypoints*.json"))
    if not paths:
        near = sorted(path.name for path in folder.glob("*.json"))
        raise ValueError(
            f"{folder}: no file *keypoints*.json. Expected files such as "
            "person_keypoints_train2017.json and person_keypoints_val2017.json."
            f"{suggestion('person_keypoints.json', near)}"
        )
    by_part: AnnotationFiles = {}
    for path in paths:
        words = [part for word, part in WORDS.items() if word in path.stem]
        part = words[0] if words else "train"
        if part in by_part:
            raise ValueError(
                f"{path}: a second file of the split {part}, next to {by_part[part][0][0].name}. "
                "Expected one. Name the files with data: {name: coco, files: ...}"
            )
        by_part[part] = [(path, _picture_folder(root, path))]
    return by_part


def picture_file(folder: Path, name: str) -> Path:
    """Return the file of a picture.

    Args:
        folder: folder of the pictures.
        name: name in the annotations.

    Raises:
        ValueError: if there is no such file.
    """
    path = folder / name
    if not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(
            f"folder: no picture '{name}' in {folder.resolve()}. Set folder to that of the "
            f"pictures.{suggestion(path.name, near)}"
        )
    return path


def _folder(folders: str | dict[str, str] | None, part: str, path: Path, base: Path) -> Path:
    if isinstance(folders, Mapping):
        if part not in folders:
            raise ValueError(
                f"folder.{part}: missing. Expected a folder for each split of files, or one folder "
                "for all"
            )
        return located(folders[part], base)
    return path.parent if folders is None else located(folders, base)


def _picture_folder(root: Path, path: Path) -> Path:
    name = path.stem.rpartition("keypoints")[2].lstrip("_")
    names = [name, f"images/{name}"] if name else []
    for entry in (*names, "images"):
        if (root / entry).is_dir():
            return root / entry
    return root
