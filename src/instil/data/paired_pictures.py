"""Pictures with a label file of the same name each: masks or depth maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.images import LazyData
from instil.data.picture_check import picture_size, readable_pictures
from instil.data.pictures import (
    Files,
    Pictures,
    check_picture_size,
    picture_files,
    pictures,
)

Pair = tuple[Path, Path | None]
"""Picture with its label file, or None without a label."""
Decode = Callable[[Path], NDArray[Any]]
"""Function from a label file to labels (H, W), int32 or float32."""


@dataclass(frozen=True)
class LabelFolder:
    """Folder with the label files of pictures.

    Attributes:
        task_name: task that reads it.
        name: name of the folder, next to ``images``.
        noun: one label file in messages.
        suffixes: extensions of label files that are not pictures.
    """

    task_name: str
    name: str
    noun: str
    suffixes: tuple[str, ...] = ()

    def files(self, directory: Path) -> list[Path]:
        """Return the label files below a directory, sorted."""
        others: list[Path] = []
        for suffix in self.suffixes:
            others += directory.rglob(f"*{suffix}")
        return sorted([*picture_files(directory), *others])


@dataclass(frozen=True)
class PairedPictures:
    """Pictures of all splits, each with its label file.

    Attributes:
        pairs: pairs of each split.
        read: reader with the mode and size of the pictures.
        notes: remarks on files that were left out.
    """

    pairs: Mapping[str, Sequence[Pair]]
    read: Pictures
    notes: tuple[str, ...]

    def labels(self, decode: Decode) -> dict[str, Tensor]:
        """Return the labels (N, H, W) of each split; -100 for pictures without a label.

        Args:
            decode: function from a label file to labels (H, W), int32 or float32.

        Raises:
            ValueError: for labels of different sizes, or of another size than their picture.
        """
        return {part: _stacked(pairs, decode, self.read.size) for part, pairs in self.pairs.items()}

    def images(self, part: str, names: Sequence[str]) -> LazyData:
        """Return the pictures of a split, without labels."""
        files = Files(tuple(picture for picture, _ in self.pairs[part]))
        label = torch.zeros(len(self.pairs[part]), dtype=torch.int64)
        return LazyData(replace(self.read, open=files), label, names)


def paired_pictures(
    directories: Mapping[str, Path],
    root: Path,
    labels: LabelFolder,
    mode_options: Mapping[str, Any],
    on_broken: str,
) -> PairedPictures:
    """Find pictures in ``images/`` and their label files of the same stem, and check all files.

    Args:
        directories: folder of each split.
        root: folder of the data.
        labels: folder of the label files.
        mode_options: ``channels``, ``size`` and ``background`` of the pictures.
        on_broken: ``error`` or ``skip``.

    Raises:
        ValueError: for a missing folder, a label file without a picture, no label file at all, and
            unreadable files unless ``on_broken`` is ``skip``.
    """
    pairs = {part: _pairs(directory, labels) for part, directory in directories.items()}
    files: list[Path] = []
    for part_pairs in pairs.values():
        for pair in part_pairs:
            files += _pair_files(pair)
    good, notes = readable_pictures(files, root, on_broken)
    for part, part_pairs in pairs.items():
        pairs[part] = [pair for pair in part_pairs if good.issuperset(_pair_files(pair))]
    read = pictures(Files((pairs["train"][0][0],)), **mode_options)
    return PairedPictures(pairs, read, notes)


def _pair_files(pair: Pair) -> list[Path]:
    return [file for file in pair if file is not None]


def _pairs(directory: Path, labels: LabelFolder) -> list[Pair]:
    """Each picture with its label file, or None."""
    image_folder, label_folder = directory / "images", directory / labels.name
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            entries = sorted(entry.name for entry in directory.iterdir() if entry.is_dir())
            folders = [name for name in entries if name not in ("images", labels.name)]
            raise ValueError(
                f"{directory}: no folder '{folder.name}'. Expected images/ and {labels.name}/ for "
                f"the task {labels.task_name}.{suggestion(folder.name, folders)}"
            )
    stems: dict[Path, Path] = {}
    for file in picture_files(image_folder):
        other = stems.setdefault(file.relative_to(image_folder).with_suffix(""), file)
        if other != file:
            raise ValueError(
                f"{file}: a second picture of this name, next to {other.name}. Expected one, which "
                f"the {labels.noun} of the same name belongs to"
            )
    label_of_stem: dict[Path, Path] = {}
    for file in labels.files(label_folder):
        stem = file.relative_to(label_folder).with_suffix("")
        if stem not in stems:
            raise ValueError(
                f"{file}: no picture of this name. Expected {image_folder / stem} with the "
                f"extension of a picture.{suggestion(str(stem), map(str, stems))}"
            )
        if stem in label_of_stem:
            raise ValueError(
                f"{file}: a second {labels.noun} of one picture, next to "
                f"{label_of_stem[stem].name}. Expected one"
            )
        label_of_stem[stem] = file
    if not label_of_stem:
        raise ValueError(
            f"{image_folder}: no picture has a {labels.noun}. Expected files of the same names in "
            f"{label_folder}"
        )
    return [(picture, label_of_stem.get(stem)) for stem, picture in stems.items()]


def _label(picture: Path, file: Path, decode: Decode, size: tuple[int, int] | None) -> NDArray[Any]:
    """Labels of a picture, resized like it, but without interpolation."""
    from PIL import Image

    label = decode(file)
    # A label in the stored orientation of a picture would not fit the picture that is read.
    expected = picture_size(picture, is_upright=True)
    check_picture_size(str(file), label.shape[::-1], expected, str(picture))
    if size is None or label.shape == size:
        return label
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


def _stacked(pairs: Sequence[Pair], decode: Decode, size: tuple[int, int] | None) -> Tensor:
    arrays = [
        None if file is None else _label(picture, file, decode, size) for picture, file in pairs
    ]
    present = [array for array in arrays if array is not None]
    shapes = sorted({array.shape for array in present})
    if len(shapes) > 1:
        raise ValueError(
            f"labels differ in size, for example {shapes[0]} and {shapes[-1]}; give `size` to "
            "resize pictures and labels"
        )
    empty = np.full(shapes[0], UNLABELLED, present[0].dtype)
    return torch.from_numpy(np.stack([empty if array is None else array for array in arrays]))
