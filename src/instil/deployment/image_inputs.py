"""Conversion of arrays, files and PIL images to the tensor that a student reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instil.data.pictures import Files, Pictures, extensions

INPUT_FORMS = (
    "a tensor or array (N, C, H, W) or (N, H, W, C), a file, a PIL image, or a list of these"
)


def as_images(inputs: Any, channels: int, size: tuple[int, int] | None) -> Tensor:
    """Convert one or several images to a tensor.

    Args:
        inputs: tensor or array (N, C, H, W) or (N, H, W, C), file, PIL image, or a list of these.
            An array (H, W) or (H, W, C) is one image. A tensor is returned unchanged.
        channels: number of channels of the result, 1 or 3 for files and PIL images.
        size: (height, width) to which files and PIL images are resized; None keeps their size.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for another type, an array of another shape, images of different sizes or a
            file that is not an image.
        FileNotFoundError: if a file does not exist.
    """
    if isinstance(inputs, Tensor):
        return inputs
    if isinstance(inputs, np.ndarray):
        return _from_array(inputs, channels)
    if isinstance(inputs, (list, tuple)) and inputs:
        return _from_list(inputs, channels, size)
    if isinstance(inputs, (str, Path)):
        path = Path(inputs)
        if not path.is_file():
            raise FileNotFoundError(f"inputs: file {path} not found. Expected {INPUT_FORMS}")
        # Raises an error that names the package to install if PIL is missing.
        extensions()
        return _from_picture(Pictures(Files((path,)), _mode(channels), size))
    if hasattr(inputs, "convert") and hasattr(inputs, "mode"):
        return _from_picture(Pictures(lambda _row: inputs, _mode(channels), size))
    raise ValueError(f"inputs: unknown type. Expected {INPUT_FORMS}, got {type(inputs).__name__}")


def warn_of_size(images: Tensor, size: tuple[int, int]) -> None:
    """Warn of images that have another size than those of the training.

    A CNN accepts them, but its features belong to objects of the training's size in pixels.

    Args:
        images: (N, C, H, W).
        size: height and width of the training images.
    """
    # An error about another number of axes follows.
    if images.ndim == 4 and tuple(images.shape[2:]) != size:
        height, width = images.shape[2:]
        warnings.warn(
            f"inputs: images of {height} x {width} pixels, and the student was trained on "
            f"{size[0]} x {size[1]}. Its predictions may be wrong. Resize the images",
            stacklevel=3,
        )


def _from_list(inputs: Sequence[Any], channels: int, size: tuple[int, int] | None) -> Tensor:
    images = [as_images(item, channels, size) for item in inputs]
    images = [image if image.ndim == 4 else image[None] for image in images]
    shapes = sorted({tuple(image.shape[1:]) for image in images})
    if len(shapes) > 1:
        raise ValueError(f"inputs: images of several sizes. Expected one size, got {shapes}")
    if len({image.dtype for image in images}) > 1:
        # Pictures of 16 bits are floating point, next to those of 8 bits.
        images = [image.float() / 255 if image.dtype == torch.uint8 else image for image in images]
    return torch.cat(images)


def _mode(channels: int) -> str:
    """PIL mode of images with this number of channels."""
    if channels not in (1, 3):
        raise ValueError(
            f"inputs: this student reads {channels} channels, but image files are read with 1 or "
            f"3. Expected a tensor or array (N, {channels}, H, W)"
        )
    return "L" if channels == 1 else "RGB"


def _from_picture(pictures: Pictures) -> Tensor:
    return _from_array(np.array(pictures(0)), 1 if pictures.mode == "L" else 3)


def _from_array(array: np.ndarray[Any, Any], channels: int) -> Tensor:
    """Add the batch axis and move the channels to axis 1.

    The channel axis is the one of size ``channels``.
    """
    shape = array.shape
    if array.ndim == 2 and channels == 1:
        array = array[None, None]
    elif array.ndim == 3 and shape[-1] == channels:
        array = array[None].transpose(0, 3, 1, 2)
    elif array.ndim == 3 and shape[0] == channels:
        array = array[None]
    elif array.ndim == 3 and channels == 1:
        array = array[:, None]
    elif array.ndim == 4 and shape[-1] == channels and shape[1] != channels:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] != channels:
        raise ValueError(
            f"inputs: array of the wrong shape. Expected (N, {channels}, H, W) or "
            f"(N, H, W, {channels}), got {shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(array))
