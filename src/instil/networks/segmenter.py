"""A small encoder-decoder for segmentation (after U-Net, Ronneberger et al. 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.cnn import check_norm, conv_stage, conv_stages


class Segmenter(nn.Module):
    """Encoder, decoder with shortcuts from the encoder, and a 1 x 1 head.

    ``stages`` are those of the encoder, as in ``CNN``, then those of the decoder, each with twice
    the resolution of the one before.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first level.
        levels: number of levels of resolution.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.
    """

    def __init__(self, classes: int, channels: int, width: int, levels: int, depth: int, norm: str):
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.stages = conv_stages(channels, width, levels, depth, norm)
        for level in reversed(range(levels - 1)):
            inputs = widths[level] + widths[level + 1]
            self.stages.append(conv_stage(inputs, widths[level], depth, norm, halve=False))
        self.head = nn.Conv2d(width, classes, 1)
        self.levels = levels

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes, H, W) of images (N, C, H, W)."""
        maps = [image]
        for stage in self.stages[: self.levels]:
            maps.append(stage(maps[-1]))
        deep = maps.pop()
        for stage in self.stages[self.levels :]:
            shortcut = maps.pop()
            upsampled = F.interpolate(deep, shortcut.shape[-2:], mode="nearest")
            deep = stage(torch.cat([upsampled, shortcut], 1))
        logits: Tensor = self.head(deep)
        return logits


def segmenter(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    width: PositiveInt = 16,
    levels: PositiveInt = 3,
    depth: PositiveInt = 1,
    norm: str = "batch",
) -> nn.Module:
    """Build a segmenter for images of any size: 58,251 parameters for 11 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        width: width of the first level.
        levels: number of levels of resolution.
        depth: convolutions per stage.
        norm: ``batch`` or ``none``.

    Raises:
        ValueError: if ``norm`` is unknown.
    """
    check_norm(norm)
    return Segmenter(classes, channels, width, levels, depth, norm)
