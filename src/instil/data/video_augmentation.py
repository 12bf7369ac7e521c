"""Random shifts, flips and temporal crops of videos that depend only on seed and sample."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


class VideoAugmentation:
    """Shift, mirror and shorten every video; all its frames change in the same way.

    The transformation is a function of ``seed``, ``index`` and ``view``. Teacher and student read
    the same changed video; ``input.frames`` of a network selects its frames afterwards.
    """

    def __init__(
        self,
        crop: Annotated[
            int, Ge(0), Doc("largest shift in each direction, in pixels; zeros fill the border")
        ] = 0,
        flip: Annotated[
            bool,
            Doc(
                "whether videos are mirrored left to right with probability 1/2; not for classes "
                "that differ by direction"
            ),
        ] = False,
        time_crop: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc(
                "largest share of the frames that is cut off; the rest, at a random position, is "
                "resampled to the same number of frames, which makes the motion slower"
            ),
        ] = 0.0,
        reverse: Annotated[
            bool,
            Doc(
                "whether videos are played backwards with probability 1/2; not for classes that "
                "differ by direction"
            ),
        ] = False,
        seed: int = 0,
    ):
        self.crop = crop
        self.flip = flip
        self.time_crop = time_crop
        self.reverse = reverse
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with transformed videos.

        Args:
            batch: has ``video`` (B, C, T, H, W), and ``index`` and ``view``, both int64 (B,).
        """
        video: Tensor = batch["video"]
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        draws = keyed_uniform(moment, 6, "data.video_augmentation")
        if self.time_crop or self.reverse:
            video = _take_frames(video, self._frames(draws[:, :3], video.shape[2]))
        down, right = ((draw * (2 * self.crop + 1)).long() for draw in draws[:, 3:5].unbind(1))
        if self.crop:
            video = shifted_video(video, down, right, self.crop)
        if self.flip:
            is_mirrored = (draws[:, 5] < 0.5)[:, None, None, None, None]
            video = torch.where(is_mirrored, video.flip(4), video)
        return batch | {"video": video}

    def _frames(self, draws: Tensor, num_frames: int) -> Tensor:
        """Indices (B, T) of the frames of each transformed video."""
        share, position, backwards = draws.unbind(1)
        length = num_frames * (1 - self.time_crop * share)
        start = position * (num_frames - length)
        steps = (torch.arange(num_frames) + 0.5) / num_frames
        frames = (start[:, None] + length[:, None] * steps).long().clamp(0, num_frames - 1)
        is_backwards = (backwards < 0.5) & self.reverse
        return torch.where(is_backwards[:, None], frames.flip(1), frames)


def _take_frames(video: Tensor, frames: Tensor) -> Tensor:
    """Frames (B, T) of videos (B, C, T, H, W)."""
    index = frames[:, None, :, None, None].expand_as(video)
    return video.gather(2, index)


def shifted_video(video: Tensor, down: Tensor, right: Tensor, largest: int) -> Tensor:
    """Shift all frames of each video by whole pixels; zeros fill the border.

    Args:
        video: (B, C, T, H, W).
        down: (B,), int64 from 0 to ``2 * largest``; ``largest`` means no shift.
        right: (B,), the same for the other direction.
        largest: largest shift, in pixels.

    Returns:
        (B, C, T, H, W).
    """
    height, width = video.shape[3:]
    padded = F.pad(video, (largest,) * 4)
    rows = 2 * largest - down[:, None] + torch.arange(height)
    columns = 2 * largest - right[:, None] + torch.arange(width)
    by_row = rows[:, None, None, :, None].expand(*video.shape[:4], padded.shape[4])
    by_column = columns[:, None, None, None, :].expand_as(video)
    return padded.gather(3, by_row).gather(4, by_column)
