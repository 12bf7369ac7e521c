"""Tensors of pictures that are columns of a table or arrays of an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.data.columns import Column
from instil.data.several_views import views_of
from instil.data.video_checks import channels_before_time

CHANNELS = (1, 3, 4)
"""Numbers of channels that are recognised in the last dimension."""
LARGEST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""Largest value of a pixel."""


def picture_size(columns: Mapping[str, Column]) -> tuple[int, ...]:
    """Return height and width of the pictures ``image``; empty without any."""
    image = columns.get("image")
    if not isinstance(image, np.ndarray) or image.ndim not in (3, 4):
        return ()
    return (
        image.shape[2:] if image.ndim == 4 and not _ends_with_channels(image) else image.shape[1:3]
    )


def picture_tensor(key: str, array: NDArray[Any], size: Sequence[int]) -> Tensor:
    """Return pictures and videos as float32, channels first, and other numbers as they are.

    Arrays ``image``, those of 8 bits with at least four dimensions, and those with the size of the
    pictures are pictures. Whole numbers of 8 and 16 bits become [0, 1].

    Args:
        key: batch key.
        array: (N, ...).
        size: height and width of pictures; arrays (N, height, width) and (N, height, width, 1, 3 or
            4) are pictures.
    """
    if key == "views":
        return views_of(array)
    has_size = array.shape[1:3] == tuple(size) and (array.ndim == 3 or _ends_with_channels(array))
    is_8_bit = array.dtype == np.uint8 and array.ndim >= 4
    is_image = key == "image" or has_size or is_8_bit
    if key == "video" and array.ndim in (4, 5):
        array = channels_before_time(array)
    elif is_image and array.ndim == 3:
        array = array[:, None]
    elif is_image and array.shape[-1] in CHANNELS and array.shape[1] not in CHANNELS:
        array = np.moveaxis(array, -1, 1)
    if is_image and array.dtype in LARGEST:
        return torch.from_numpy(np.ascontiguousarray(array)).float().div_(LARGEST[array.dtype])
    return torch.from_numpy(np.ascontiguousarray(plain_numbers(array)))


def plain_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as int64, others as float32."""
    dtype = np.float32 if array.dtype.kind == "f" or not array.size else np.int64
    converted: NDArray[Any] = array.astype(dtype, copy=False)
    return converted


def _ends_with_channels(array: NDArray[Any]) -> bool:
    """Whether an array is (N, H, W, C) with a number of channels that pictures have."""
    return array.ndim == 4 and array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS
