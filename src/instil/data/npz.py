"""Images and labels from one NumPy archive."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.core import closest
from instil.data.images import ArrayData, ImageData
from instil.data.paths import located
from instil.data.splits import Splits, splits

IMAGES, LABELS = ("image", "images", "x"), ("label", "labels", "y")
CHANNELS = (1, 3, 4)
SPLITS = ("train", "validation", "test")


def npz(
    path: str,
    classes: list[str] | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    base: Path = Path(),
) -> Splits:
    """The arrays ``image``, ``label`` and, where they are there, ``split`` and ``classes`` of a ``.npz`` file.

    ``image`` (also ``images``, ``x``) is uint8, or floating point in [0, 1], of shape (N, H, W), (N, H, W, C) or (N, C, H, W); ``label`` (``labels``,
    ``y``) holds class numbers (N,) or one yes or no a class (N, C), -100 for none; ``split`` says 0 train, 1 validation, 2 test; ``classes`` are
    names. Shares ``validation`` and ``test`` of train are held out where ``split`` gives none.

    Raises ValueError for a file that is missing or no archive, a missing array and data that do not fit.
    """
    file = located(path, base)
    arrays = _read(file)
    try:
        image, label = (
            channels_first(_array(arrays, IMAGES)),
            torch.from_numpy(_array(arrays, LABELS)),
        )
        whole = ArrayData(image, label, classes or _classes(arrays, label))
        return splits(_parts(whole, arrays.get("split")), validation, test)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def channels_first(array: NDArray[np.generic] | Tensor) -> Tensor:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W); channels are 1, 3 or 4 where they come last."""
    image = torch.as_tensor(array)
    if image.ndim == 3:
        return image[:, None]
    if image.ndim == 4 and image.shape[3] in CHANNELS and image.shape[1] not in CHANNELS:
        return image.permute(0, 3, 1, 2)
    return image


def _read(file: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, AttributeError, EOFError, OSError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} cannot be read as a .npz archive of plain arrays: {error}"
        ) from error


def _array(
    arrays: Mapping[str, NDArray[np.generic]], names: tuple[str, ...]
) -> NDArray[np.generic]:
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None:
        there = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise ValueError(
            f"there is no array '{names[0]}' (or {', '.join(names[1:])}); the file has {there}; {closest(names[0], arrays)}"
        )
    return found


def _classes(arrays: Mapping[str, NDArray[np.generic]], label: Tensor) -> list[str]:
    """Names from the file, or the class numbers."""
    if "classes" in arrays:
        return [str(name) for name in arrays["classes"].tolist()]
    return [
        str(number)
        for number in range(
            int(label.max()) + 1 if label.ndim == 1 and len(label) else label.shape[-1]
        )
    ]


def _parts(whole: ArrayData, split: NDArray[np.generic] | None) -> dict[str, ImageData]:
    if split is None:
        return {"train": whole}
    if split.shape != (len(whole),) or not np.isin(split, (0, 1, 2)).all():
        raise ValueError(
            f"'split' must hold 0 (train), 1 (validation) or 2 (test) for each of the {len(whole)} images"
        )
    parts: dict[str, ImageData] = {}
    for number, name in enumerate(SPLITS):
        rows = torch.from_numpy(np.flatnonzero(split == number))
        if len(rows):
            parts[name] = whole.subset(rows)
            parts[name].index = torch.arange(len(rows))
    return parts
