"""Source ``npz``: images and labels, or any other arrays, from one NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.cards.closest import did_you_mean
from instil.core import UNLABELLED
from instil.data.archive import archive_class_names, named_errors, read_arrays
from instil.data.archive_columns import archive_samples
from instil.data.array_labels import TASKS, labelled_arrays
from instil.data.boxed_arrays import boxed_arrays
from instil.data.column_samples import LabelKind
from instil.data.images import ArrayData
from instil.data.labels import class_index_names
from instil.data.paths import located
from instil.data.samples import Samples
from instil.data.splits import Splits, TestOption, ValidationOption, drawn_rows, splits

IMAGES = ("image", "images", "x")
"""Names of the array of images."""
LABELS = ("label", "labels", "y")
"""Names of the array of labels."""
CHANNELS = (1, 3, 4)
"""Numbers of channels that are recognised in the last dimension."""
SPLITS = ("train", "validation", "test")
"""Names of the values 0, 1 and 2 of ``split``."""


def npz(
    path: Annotated[str, Doc("file, relative to the recipe or to the working directory")],
    classes: Annotated[
        list[str] | None,
        Doc("names of the classes or outputs; null: those of the file, or their indices"),
    ] = None,
    columns: Annotated[
        dict[str, str] | None,
        Doc("array of each batch key, such as `{points: xyz, label: y}`; null: image and label"),
    ] = None,
    labels: Annotated[LabelKind | None, Doc("with columns, kind of labels; null: by type")] = None,
    lengths: Annotated[
        dict[str, str] | None,
        Doc("with columns, array with the rows of each sample in an array that joins all samples"),
    ] = None,
    axes: Annotated[
        dict[str, list[int]] | None,
        Doc("with columns, order of an array's dimensions, such as [0, 2, 1] for (N, bands, T)"),
    ] = None,
    rows: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc(
            "number of training samples, drawn at random in equal shares of the classes; null: all"
        ),
    ] = None,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
    task_name: str = "",
) -> Splits:
    """Arrays ``image``, ``label`` and, optionally, ``split`` and ``classes`` of a ``.npz`` file.

    ``image`` (also ``images``, ``x``) is uint8, uint16, or floating point in [0, 1], of shape
    (N, H, W), (N, H, W, C) or (N, C, H, W). ``split`` (N,) holds 0 train, 1 validation, 2 test.

    ``label`` (also ``labels``, ``y``) depends on the task:

    - classification: class indices or names (N,), or one yes or no for each class (N, C); -100,
      or an empty name, for no label;
    - segmentation: class indices (N, H, W), 255 for void, -100 for no label;
    - depth: floating-point distances (N, H, W); 0, -100 or NaN for an unknown one;
    - pose: column and row of K keypoints in pixels (N, K, 2), -100 or NaN for an unknown one, and
      optionally ``area`` (N,), the area of each object in pixels;
    - detection with an array ``box`` (N, K, 4), edges in pixels: class indices (N, K), both padded
      with -100;
    - regression: floating-point targets (N,) or (N, D), -100 or NaN for no label.

    With ``columns``, the arrays have any names and are any inputs, as for the source ``parquet``.

    Args:
        base: folder that relative paths start from.
        task_name: task of the recipe, which decides the form of the labels.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that is missing or no archive, a missing array, and data that do not
            fit.
    """
    file = located(path, base)
    arrays = read_arrays(file)
    with named_errors(file):
        if columns is None:
            whole = _samples(arrays, task_name, classes)
        else:
            names = classes or archive_class_names(arrays)
            whole = archive_samples(
                arrays, columns, lengths or {}, axes or {}, names, labels, task_name
            )
        data = splits(_parts(whole, arrays.get("split")), validation, test)
        return data if rows is None else replace(data, train=drawn_rows(data.train, rows))


def _samples(
    arrays: Mapping[str, NDArray[np.generic]], task_name: str, classes: list[str] | None
) -> Samples:
    """All samples of a file, with labels for the task."""
    image = channels_first(_unit_range(_array(arrays, IMAGES)))
    values = _array(arrays, LABELS)
    names = classes or archive_class_names(arrays)
    if task_name == "detection" and "box" in arrays:
        return boxed_arrays(image, values, arrays["box"], names)
    if task_name in TASKS:
        images = ArrayData(image, torch.full((len(image),), UNLABELLED), names or ())
        return labelled_arrays(task_name, images, values, names, arrays.get("area"))
    if values.dtype.kind in "US":
        label, names = _named_labels(values, names)
        return ArrayData(image, label, names)
    label = torch.from_numpy(values)
    _check_classes(label)
    return ArrayData(image, label, names or class_index_names(label))


def _unit_range(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """16-bit images as float32 in [0, 1]; others unchanged."""
    if image.dtype != np.uint16:
        return image
    scaled: NDArray[np.generic] = image.astype(np.float32) / np.float32(65535)
    return scaled


def _named_labels(values: NDArray[np.generic], names: list[str] | None) -> tuple[Tensor, list[str]]:
    """Class indices of names (N,); without ``names`` the classes are in alphabetical order."""
    if values.ndim != 1:
        raise ValueError(f"label: class names have the shape {values.shape}. Expected (N,)")
    labels = [
        value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()
    ]
    classes = names or sorted({label for label in labels if label})
    indices = {name: index for index, name in enumerate(classes)} | {"": UNLABELLED}
    for label in labels:
        if label not in indices:
            raise ValueError(f"label: unknown class '{label}'.{suggestion(label, classes)}")
    return torch.tensor([indices[label] for label in labels]), classes


def _check_classes(label: Tensor) -> None:
    """Raise ValueError for labels of another task, with the task that fits."""
    if label.ndim == 3:
        raise ValueError(f"label: masks of shape {tuple(label.shape)} need task: segmentation")
    is_real = label.ndim in (1, 2) and label.is_floating_point()
    if not is_real:
        return
    values = label[label != UNLABELLED]
    is_whole = torch.equal(values, values.round()) if label.ndim == 1 else True
    is_in_unit_range = bool(((values >= 0) & (values <= 1)).all()) if label.ndim == 2 else True
    if not (is_whole and is_in_unit_range):
        raise ValueError(
            "label: real numbers are not classes. Use task: regression for them, or give "
            "class indices (N,), or yes and no in [0, 1] for each class (N, C)"
        )


def channels_first(array: NDArray[np.generic] | Tensor) -> Tensor:
    """Return images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W).

    The last dimension is that of the channels if its size is 1, 3 or 4 and the second one's is not.
    """
    image = torch.as_tensor(array)
    if image.ndim == 3:
        return image[:, None]
    if image.ndim == 4 and image.shape[3] in CHANNELS and image.shape[1] not in CHANNELS:
        return image.permute(0, 3, 1, 2)
    return image


def _array(
    arrays: Mapping[str, NDArray[np.generic]], names: tuple[str, ...]
) -> NDArray[np.generic]:
    """The first array that has one of the names."""
    for name in names:
        if name in arrays:
            return arrays[name]
    present = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    raise ValueError(
        f"no array '{names[0]}' (or {', '.join(names[1:])}); the file has {present}."
        f"{did_you_mean(names[0], arrays)}"
    )


def _parts(whole: Samples, split: NDArray[np.generic] | None) -> dict[str, Samples]:
    if split is None:
        return {"train": whole}
    if split.shape != (len(whole),) or not np.isin(split, (0, 1, 2)).all():
        raise ValueError(
            f"'split' must hold 0 (train), 1 (validation) or 2 (test) for each of the {len(whole)} "
            "images"
        )
    parts: dict[str, Samples] = {}
    for value, name in enumerate(SPLITS):
        rows = torch.from_numpy(np.flatnonzero(split == value))
        if len(rows):
            parts[name] = whole.subset(rows)
            parts[name].index = torch.arange(len(rows))
    return parts
