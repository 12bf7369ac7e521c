"""A small encoder-decoder for depth: the segmenter with one positive output."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.cnn import check_norm
from instil.networks.segmenter import Segmenter


class DepthEstimator(Segmenter):
    """Encoder-decoder as in ``Segmenter``, whose output is made positive by a softplus.

    Args:
        channels: number of channels of the image.
        width: width of the first level.
        levels: number of levels of resolution.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
    """

    def __init__(self, channels: int, width: int, levels: int, depth: int, norm: str):
        super().__init__(1, channels, width, levels, depth, norm)

    def forward(self, image: Tensor) -> Tensor:
        """Compute depths (N, 1, H, W) of images (N, C, H, W)."""
        return F.softplus(super().forward(image))


def depth_estimator(
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    levels: PositiveInt = 3,
    depth: PositiveInt = 1,
    norm: str = "batch",
) -> nn.Module:
    """Build a depth network for images of any size: 58,081 parameters at the defaults.

    Args:
        channels: number of channels of the image.
        width: width of the first level.
        levels: number of levels of resolution.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_norm(norm)
    return DepthEstimator(channels, width, levels, depth, norm)
