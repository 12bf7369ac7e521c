"""Source ``folder``: pictures in one folder per class, with masks, depth maps or keypoints."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.class_folders import (
    WITHOUT_LABEL,
    check_classes,
    class_names,
    split_directories,
)
from instil.data.coco_files import keypoint_files
from instil.data.depth_pictures import depth_pictures
from instil.data.images import LazyData
from instil.data.keypoint_pictures import PaddingOption, keypoint_pictures
from instil.data.masks import masked_pictures
from instil.data.paths import located
from instil.data.picture_check import BrokenOption, check_one_size, readable_pictures
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

Labelled = tuple[tuple[Path, ...], list[int]]
"""Picture files with the class index of each."""


def folder(
    path: Annotated[str, Doc("folder, relative to the recipe or to the working directory")],
    size: SizeOption = None,
    channels: ChannelsOption = None,
    background: BackgroundOption = "white",
    broken: BrokenOption = "error",
    classes: Annotated[
        list[str] | None, Doc("class names of masks, in the order of the mask values")
    ] = None,
    depth_scale: Annotated[
        float | None,
        Doc(
            "value of a depth map for a depth of 1: 256 for metres in KITTI, 1000 for millimetres, "
            "as in NYU; null: 1"
        ),
    ] = None,
    padding: PaddingOption = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Pictures in one folder per class, or with masks, depth maps or keypoints.

    Paths are ``PATH/class/picture.png``, or ``PATH/train/class/picture.png`` with the folders
    ``validation`` (or ``val``) and ``test`` next to ``train``. Classes are the names of the folders
    in alphabetical order. A folder ``unlabelled`` (or ``unlabeled``) next to those of the classes
    has pictures without a label.

    Tasks with other labels read these files, in ``PATH`` or in ``PATH/train``:

    - ``segmentation``: ``images/name.png`` and ``masks/name.png``; see ``masked_pictures``;
    - ``depth``: ``images/name.png`` and ``depth/name.png`` or ``depth/name.npy``; see
      ``depth_pictures``;
    - ``pose``: ``PATH/annotations/person_keypoints_train2017.json`` with the pictures in
      ``PATH/train2017``, as in COCO; see ``keypoint_files`` and ``keypoint_pictures``.

    Every file is checked once before training, and decoded when it is read. Files without the
    extension of a picture are ignored.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing or empty folder, a class without pictures, and unreadable files
            unless ``broken`` is ``skip``.
    """
    root = located(path, base)
    if not root.is_dir():
        raise ValueError(f"path: {root} is a file, not a folder. Expected a folder of pictures")
    mode_options = {"channels": channels, "size": size, "background": background}
    if task_name == "detection":
        raise ValueError(
            f"path: this source reads no boxes of the pictures in {root}. Expected the YAML file "
            "of YOLO data (data.name: yolo) or the JSON annotations of COCO (data.name: coco)"
        )
    _check_task(task_name, classes, depth_scale, padding)
    if task_name == "pose":
        sources = keypoint_files(root)
        return keypoint_pictures(sources, None, mode_options, padding, broken, validation, test)
    directories = split_directories(root)
    if task_name == "segmentation":
        return masked_pictures(directories, root, mode_options, classes, broken, validation, test)
    if task_name == "depth":
        scale = 1.0 if depth_scale is None else depth_scale
        return depth_pictures(directories, root, mode_options, scale, broken, validation, test)
    return _class_pictures(directories, root, mode_options, broken, validation, test)


def _check_task(
    task_name: str, classes: list[str] | None, depth_scale: float | None, padding: float | None
) -> None:
    """Raise ValueError for an option of another task."""
    if classes is not None and task_name != "segmentation":
        raise ValueError(
            "classes: class names come from the folders. Expected no classes without masks. "
            "Leave the option out, or set task: segmentation"
        )
    if depth_scale is not None and task_name != "depth":
        raise ValueError(
            "depth_scale: only depth maps have a scale. Leave the option out, or set task: depth"
        )
    if padding is not None and task_name != "pose":
        raise ValueError("padding: only keypoints need it. Leave it out, or set task: pose")


def _class_pictures(
    directories: dict[str, Path],
    root: Path,
    mode_options: Mapping[str, Any],
    on_broken: str,
    validation: float,
    test: float,
) -> Splits:
    """Pictures in one folder per class."""
    names = class_names(directories["train"])
    if not names:
        raise ValueError(
            f"path: {directories['train'].resolve()} has no folders. Expected one folder per "
            "class, with its pictures"
        )
    _check_no_unlabelled([directories[part] for part in directories if part != "train"])
    files = {part: _files(directory, names) for part, directory in directories.items()}
    files["train"] = _with_unlabelled(files["train"], [directories["train"], root])
    files, notes = _readable(files, root, on_broken)
    mode = pictures(Files(files["train"][0]), **mode_options)
    check_one_size(list(itertools.chain(*(paths for paths, _ in files.values()))), mode.size)
    parts: dict[str, Samples] = {
        part: LazyData(replace(mode, open=Files(paths)), torch.tensor(label), names)
        for part, (paths, label) in files.items()
    }
    return replace(splits(parts, validation, test), notes=notes)


def _files(directory: Path, classes: Sequence[str]) -> Labelled:
    """Pictures of all class folders of a directory."""
    paths: list[Path] = []
    label: list[int] = []
    for name in check_classes(directory, classes):
        class_files = picture_files(directory / name)
        if not class_files:
            raise ValueError(f"path: the class folder {directory / name} has no pictures")
        paths += class_files
        label += [classes.index(name)] * len(class_files)
    return tuple(paths), label


def _check_no_unlabelled(directories: Sequence[Path]) -> None:
    for directory in directories:
        for entry in WITHOUT_LABEL:
            if (directory / entry).is_dir():
                raise ValueError(
                    f"{directory / entry}: pictures without a label cannot be evaluated. "
                    "Expected them in train"
                )


def _with_unlabelled(labelled: Labelled, directories: Sequence[Path]) -> Labelled:
    """Labelled pictures, followed by the unlabelled ones of some directories."""
    paths, label = labelled
    unlabelled: set[Path] = set()
    for directory in directories:
        unlabelled.update(directory / entry for entry in WITHOUT_LABEL)
    for directory in sorted(path for path in unlabelled if path.is_dir()):
        files = picture_files(directory)
        if not files:
            raise ValueError(f"path: the folder {directory} has no pictures")
        paths = (*paths, *files)
        label = [*label, *[UNLABELLED] * len(files)]
    return paths, label


def _readable(
    files: dict[str, Labelled], root: Path, on_broken: str
) -> tuple[dict[str, Labelled], tuple[str, ...]]:
    """Files that can be read, and a note about the others."""
    paths: list[Path] = []
    for part_paths, _ in files.values():
        paths += part_paths
    good_paths, notes = readable_pictures(paths, root, on_broken)
    readable: dict[str, Labelled] = {}
    for part, (part_paths, label) in files.items():
        rows = [row for row, path in enumerate(part_paths) if path in good_paths]
        readable[part] = tuple(part_paths[row] for row in rows), [label[row] for row in rows]
    return readable, notes
