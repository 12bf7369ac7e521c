"""A small convolutional network for keypoints with a head of SimCC."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.cnn import check_norm, conv_stages

CELLS = 4
"""Side of the pooled map of each keypoint."""


class PoseEstimator(nn.Module):
    """Stages as in ``CNN``, a map for each keypoint, and linear layers to columns and rows.

    The layers are those of SimCC (Li et al. 2022): all keypoints share them.

    Args:
        classes: number of keypoints.
        size: height and width of the images.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
        split: bins per pixel.
    """

    def __init__(
        self,
        classes: int,
        size: tuple[int, int],
        channels: int,
        width: int,
        stages: int,
        depth: int,
        norm: str,
        split: int,
    ):
        super().__init__()
        self.stages = conv_stages(channels, width, stages, depth, norm)
        self.maps = nn.Conv2d(width * 2 ** (stages - 1), classes * CELLS, 1)
        self.x_head = nn.Linear(CELLS**3, size[1] * split)
        self.y_head = nn.Linear(CELLS**3, size[0] * split)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute ``x_logits`` (N, K, columns) and ``y_logits`` (N, K, rows) of images."""
        for stage in self.stages:
            image = stage(image)
        maps = F.adaptive_avg_pool2d(self.maps(image), CELLS)
        vectors = maps.view(len(maps), -1, CELLS**3)
        return {"x_logits": self.x_head(vectors), "y_logits": self.y_head(vectors)}


def pose_estimator(
    classes: PositiveInt,
    size: PositiveInt | tuple[PositiveInt, PositiveInt],
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    stages: PositiveInt = 2,
    depth: PositiveInt = 1,
    norm: str = "batch",
    split: PositiveInt = 1,
) -> nn.Module:
    """Build a pose network for images of one size.

    Args:
        classes: number of keypoints.
        size: side, or height and width, of the images.
        channels: number of channels of the image.
        width: width of the first stage.
        stages: number of stages.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
        split: bins per pixel.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_norm(norm)
    sides = (size, size) if isinstance(size, int) else (size[0], size[1])
    return PoseEstimator(classes, sides, channels, width, stages, depth, norm, split)
