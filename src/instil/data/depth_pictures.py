"""Pictures with a file of depths each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.labelled_pixels import DepthImages
from instil.data.paired_pictures import LabelFolder, paired_pictures
from instil.data.pictures import DEEP_MODES, Files
from instil.data.samples import Samples
from instil.data.splits import Splits, splits

DEPTHS = LabelFolder("depth", "depth", "depth map", (".npy",))


def depth_pictures(
    directories: Mapping[str, Path],
    root: Path,
    mode_options: Mapping[str, Any],
    scale: float,
    on_broken: str,
    validation: float,
    test: float,
) -> Splits:
    """Read pictures in ``images/`` and their depth maps in ``depth/``, which have the same stem.

    A depth map is a picture of one channel, usually a PNG of 16 bits, or an array (H, W) in a file
    ``.npy``. A depth is the value of the file divided by ``scale``; 0 and NaN are unknown. A
    picture without a depth map has no label. Depth maps are held in memory, and resized like their
    pictures without interpolation, so that unknown depths stay apart from known ones.

    Args:
        directories: folder of each split.
        root: folder of the data.
        mode_options: ``channels``, ``size`` and ``background`` of the pictures.
        scale: value of a file for a depth of 1.
        on_broken: ``error`` or ``skip``.
        validation: share of the training data for a missing validation split.
        test: share of the training data for a missing test split.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing folder, a depth map without a picture, and files of another form.
    """
    if not scale > 0:
        raise ValueError(f"depth_scale: {scale} is not above 0. Expected a positive number")
    paired = paired_pictures(directories, root, DEPTHS, mode_options, on_broken)
    depths = paired.labels(partial(_depth, scale))
    for part, depth in depths.items():
        if not (depth > 0).any():
            raise ValueError(
                f"{directories[part] / DEPTHS.name}: no depth is above 0. Expected at least one"
            )
    parts: dict[str, Samples] = {
        part: DepthImages(paired.images(part, ("depth",)), depth) for part, depth in depths.items()
    }
    return replace(splits(parts, validation, test), notes=paired.notes)


def _depth(scale: float, file: Path) -> NDArray[np.float32]:
    """Depths (H, W) of a file."""
    values = _array(file) if file.suffix.lower() == ".npy" else _picture(file)
    depth: NDArray[np.float32] = values.astype(np.float32) / np.float32(scale)
    if np.isinf(depth).any():
        raise ValueError(
            f"{file}: {np.isinf(depth).sum()} depths are infinite. Expected 0 or NaN for a pixel "
            "without a measurement"
        )
    return depth


def _array(file: Path) -> NDArray[Any]:
    values: NDArray[Any] = np.load(file, allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{file}: {values.dtype} of shape {values.shape}. Expected numbers of shape (H, W)"
        )
    return values


def _picture(file: Path) -> NDArray[Any]:
    picture = Files((file,))(0)
    if picture.mode not in ("L", *DEEP_MODES):
        raise ValueError(
            f"{file}: a depth map of mode {picture.mode}. Expected one channel, such as a PNG of "
            "16 bits, or an array in a file .npy"
        )
    return np.asarray(picture)
