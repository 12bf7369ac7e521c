"""Source ``object_masks``: images with a numbered mask of their objects, in a NumPy archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from typing_extensions import Doc

from instil.data.archive import named_errors, read_arrays
from instil.data.graph_arrays import split_array
from instil.data.images import in_unit_range
from instil.data.paths import located
from instil.data.prompted_objects import prompted_objects
from instil.data.samples import TensorData
from instil.data.splits import HOLD_OUT_SEED, Splits, TestOption, ValidationOption

SPLITS = ("train", "validation", "test")
"""Names of the values 0, 1 and 2 of ``split``."""


def object_masks(
    path: Annotated[str, Doc("file, relative to the recipe or to the working directory")],
    smallest: Annotated[
        int, Ge(1), Doc("smallest number of pixels of an object; smaller ones are left out")
    ] = 16,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Objects of images, for promptable segmentation; a sample is one object with its prompts.

    The file has ``image`` (N, H, W, C), uint8 or floating point in [0, 1], and ``instances``
    (N, H, W) with the number of the object of each pixel, 0 for the background. ``split`` (N,) is
    optional and holds 0 train, 1 validation, 2 test and -1 none; otherwise images are drawn at
    random. All objects of an image are in one split. Samples are held in memory.

    Args:
        path: file, relative to the recipe or to the working directory.
        smallest: smallest number of pixels of an object.
        validation: share of the images for validation, if the file has no ``split``.
        test: share of the images for test, if the file has no ``split``.
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a missing array, arrays that do not fit, and an empty split.
    """
    file = located(path, base)
    arrays = read_arrays(file)
    for name in ("image", "instances"):
        if name not in arrays:
            raise ValueError(f"{file}: no array '{name}'. Expected image and instances")
    pixels = torch.from_numpy(np.ascontiguousarray(arrays["image"]))
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(
            f"{file}: image has the shape {tuple(pixels.shape)}. Expected (N, H, W, C) with one or "
            "three channels"
        )
    with named_errors(file):
        values = pixels.float() / 255 if pixels.dtype == torch.uint8 else in_unit_range(pixels)
    image = values.movedim(3, 1).contiguous()
    instances = torch.from_numpy(arrays["instances"].astype(np.int64))
    if "split" in arrays:
        with named_errors(file):
            split = torch.from_numpy(split_array(arrays["split"], len(image)))
    else:
        split = _random_split(len(image), validation, test)
    parts = []
    for index, name in enumerate(SPLITS):
        rows = split == index
        try:
            parts.append(_part(image[rows], instances[rows], index, smallest))
        except ValueError as error:
            raise ValueError(f"{file}: {name} data: {error}") from error
    train, held_out, test_data = parts
    return Splits(train, held_out, test_data, train.classes, train.kind)


def _part(image: torch.Tensor, instances: torch.Tensor, seed: int, smallest: int) -> TensorData:
    return prompted_objects(image, instances, seed, smallest)


def _random_split(count: int, validation: float, test: float) -> torch.Tensor:
    """Split of each image; objects of one image are never divided."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(HOLD_OUT_SEED))
    split = torch.zeros(count, dtype=torch.int64)
    num_test, num_validation = round(test * count), round(validation * count)
    split[order[:num_test]] = 2
    split[order[num_test : num_test + num_validation]] = 1
    return split
