"""Small networks of videos: 3D convolutions, frames on their own, and shifted frames."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from instil.cards import Fraction, PositiveInt

Temporal = Literal["conv", "shift", "none"]


class TemporalShift(nn.Module):
    """Shift of some channels by one frame (TSM, Lin et al. 2019).

    One part of the channels comes from the next frame, one from the previous frame, and the others
    stay. Zeros fill the ends.

    Args:
        parts: number of equal parts of the channels; two of them are shifted.
    """

    def __init__(self, parts: int = 8):
        super().__init__()
        self.parts = parts

    def forward(self, video: Tensor) -> Tensor:
        """Return shifted features (N, C, T, H, W)."""
        size = max(1, video.shape[1] // self.parts)
        if video.shape[1] < 3:
            return video
        empty = torch.zeros_like(video[:, :size, :1])
        later = torch.cat([video[:, :size, 1:], empty], 2)
        earlier = torch.cat([empty, video[:, size : 2 * size, :-1]], 2)
        return torch.cat([later, earlier, video[:, 2 * size :]], 1)


class VideoCNN(nn.Module):
    """Stages of convolutions, a mean over time and space, dropout and a linear head.

    Each stage after the first has half the height and width and twice the channels. The number of
    frames stays, so that features (N, C, T, H, W) of all levels have one entry per frame.

    Args:
        classes: number of classes.
        channels: number of channels of the video.
        width: channels of the first stage.
        stages: number of stages.
        temporal: exchange of information between frames, see ``video_cnn``.
        dropout: share of the pooled features that is dropped in training.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        width: int,
        stages: int,
        temporal: Temporal,
        dropout: float,
    ):
        super().__init__()
        widths = [width * 2**level for level in range(stages)]
        inputs = [channels, *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(i, o, temporal, level > 0)
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, video: Tensor) -> Tensor:
        """Compute logits (N, classes) of videos (N, C, T, H, W)."""
        for stage in self.stages:
            video = stage(video)
        logits: Tensor = self.head(self.dropout(video.mean((2, 3, 4))))
        return logits


def _stage(inputs: int, outputs: int, temporal: Temporal, halve: bool) -> nn.Sequential:
    """Build a stage: pooling in space, a shift in time, a convolution, BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    if halve:
        layers.append(nn.MaxPool3d((1, 2, 2), ceil_mode=True))
    if temporal == "shift":
        layers.append(TemporalShift())
    depth = 3 if temporal == "conv" else 1
    # A bias before BatchNorm would have no effect.
    layers += [
        nn.Conv3d(inputs, outputs, (depth, 3, 3), padding=(depth // 2, 1, 1), bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers)


def video_cnn(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    stages: PositiveInt = 3,
    temporal: Temporal = "conv",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Build a CNN for videos of any size: 70,426 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the video.
        width: channels of the first stage.
        stages: number of stages.
        temporal: ``conv`` for 3 x 3 x 3 convolutions; ``shift`` for 3 x 3 convolutions of frames
            whose channels are shifted in time (TSM); ``none`` for 3 x 3 convolutions of each frame
            and the mean over the frames.
        dropout: share of the pooled features that is dropped in training.

    Raises:
        ValueError: for another value of ``temporal``.
    """
    if temporal not in ("conv", "shift", "none"):
        raise ValueError(f"temporal: expected conv, shift or none, got '{temporal}'")
    return VideoCNN(classes, channels, width, stages, temporal, dropout)
