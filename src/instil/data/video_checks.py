"""Layout and checks of videos before training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CHANNELS = (1, 2, 3, 4)
"""Numbers of channels of a video."""


def channels_before_time(array: NDArray[Any]) -> NDArray[Any]:
    """Return videos as (N, C, T, H, W).

    Args:
        array: (N, T, H, W), (N, T, H, W, C), (N, T, C, H, W) or (N, C, T, H, W).
    """
    if array.ndim == 4:
        return array[:, None]
    # One frame (N, 1, H, W, C) is not one channel: frames are wider than they have channels.
    if array.shape[4] in CHANNELS and array.shape[3] not in CHANNELS:
        return np.moveaxis(array, -1, 1)
    if array.shape[1] in CHANNELS:
        return array
    return np.swapaxes(array, 1, 2) if array.shape[2] in CHANNELS else array


def video_facts(video: Tensor) -> dict[str, Any]:
    """Return the properties of videos (N, C, T, H, W) that builders of networks need."""
    channels, frames, height, width = video.shape[1:]
    size = height if height == width else (height, width)
    return {"channels": channels, "frames": frames, "size": size}


def check_video(video: Tensor) -> None:
    """Check the shape, type and range of videos.

    Args:
        video: (N, C, T, H, W).

    Raises:
        ValueError: for another shape, a single frame, another type, and values out of [0, 1].
    """
    shape = tuple(video.shape)
    if video.ndim != 5:
        raise ValueError(
            f"video: wrong shape. Expected (N, C, T, H, W), got {shape}. Use task: classification "
            "for single images"
        )
    if video.shape[1] not in CHANNELS:
        raise ValueError(
            f"video: {video.shape[1]} channels. Expected (N, C, T, H, W) with 1 to 4 channels, got "
            f"{shape}. Move the axis of the channels in front of the axis of time"
        )
    if video.shape[2] < 2:
        raise ValueError(
            f"video: one frame. Expected at least 2 frames (N, C, T, H, W), got {shape}. Use "
            "task: classification for single images"
        )
    # The comparison is negated, so that NaN is refused too.
    is_real = video.is_floating_point()
    if not is_real or not (video.min() >= 0 and video.max() <= 1):
        dtype = str(video.dtype).removeprefix("torch.")
        raise ValueError(
            f"video: values out of range. Expected floating-point numbers in [0, 1], got {dtype}. "
            "Divide 8-bit values by 255"
        )
