"""Networks for videos, with three-dimensional convolutions or with stacked frames."""

from __future__ import annotations

from torch import Tensor, nn


class Conv3dNetwork(nn.Module):
    """Convolutions over time, height and width; video (N, T, channels, H, W)."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, width, 3, padding=1),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(width, 2 * width, 3, padding=1),
            nn.BatchNorm3d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d((2, 2, 2)),
        )
        self.head = nn.Linear(16 * width, classes)

    def forward(self, video: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(video.transpose(1, 2)).flatten(1))
        return logits


class StackedFramesNetwork(nn.Module):
    """Two-dimensional convolutions; the frames of a video are its channels."""

    def __init__(self, channels: int, frames: int, classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels * frames, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, video: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(video.flatten(1, 2)).flatten(1))
        return logits


def conv3d(classes: int, channels: int, width: int = 16) -> nn.Module:
    """Build a network of three-dimensional convolutions."""
    return Conv3dNetwork(channels, classes, width)


def stacked_frames(classes: int, channels: int, frames: int, width: int = 16) -> nn.Module:
    """Build a network of two-dimensional convolutions on stacked frames."""
    return StackedFramesNetwork(channels, frames, classes, width)
