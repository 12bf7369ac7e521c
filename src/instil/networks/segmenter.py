"""A small encoder-decoder with shortcuts (after U-Net, Ronneberger et al. 2015) that gives one class a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.networks.cnn import conv_stage


class Segmenter(nn.Module):
    """``stages``: down, each after the first at half the resolution and twice the width, then up again beside the map of that size; 1 x 1 head."""

    def __init__(self, classes: int, channels: int, width: int, levels: int, depth: int, norm: str):
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        inputs = [channels, *widths[:-1]]
        down = [
            conv_stage(i, o, depth, norm, halve=level > 0)
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        ]
        up = [
            conv_stage(widths[level] + widths[level + 1], widths[level], depth, norm, halve=False)
            for level in reversed(range(levels - 1))
        ]
        self.stages = nn.ModuleList([*down, *up])
        self.head = nn.Conv2d(width, classes, 1)
        self.levels = levels

    def forward(self, image: Tensor) -> Tensor:
        maps = [image]
        for part in self.stages[: self.levels]:
            maps.append(part(maps[-1]))
        deep = maps.pop()
        for part in self.stages[self.levels :]:
            beside = maps.pop()
            deep = part(
                torch.cat([F.interpolate(deep, beside.shape[-2:], mode="nearest"), beside], 1)
            )
        logits: Tensor = self.head(deep)
        return logits


def segmenter(
    classes: int,
    channels: int = 1,
    width: int = 16,
    levels: int = 3,
    depth: int = 1,
    norm: str = "batch",
) -> nn.Module:
    """58,251 parameters for 11 classes at the defaults; images of any size to logits (N, classes, H, W). ``norm``: ``batch`` or ``none``."""
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")
    return Segmenter(classes, channels, width, levels, depth, norm)
