"""Exits: classifiers of intermediate feature levels."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.feature_maps import as_map
from instil.functional.pooling import mean_positions
from instil.modules.adapters import PointwiseConv, match_dtype
from instil.modules.connectors import NORMS, Norm

MAX_SIDE = 7
"""Positions per side up to which tokens are not merged."""


def _separable_convolution(
    source: int, target: int, stride: int, norm: Norm, dims: int
) -> list[nn.Module]:
    """Depthwise separable 3x3 convolution with a norm and a ReLU."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    depthwise = kind(source, source, 3, stride, 1, groups=source, bias=False)
    pointwise = PointwiseConv(source, target, bias=False)
    return [depthwise, pointwise, NORMS[norm](target), nn.ReLU()]


def _downsampling_block(source: int, target: int, norm: Norm, dims: int) -> nn.Sequential:
    """Two depthwise separable convolutions, the first with stride 2."""
    first = _separable_convolution(source, source, 2, norm, dims)
    second = _separable_convolution(source, target, 1, norm, dims)
    return nn.Sequential(*first, *second)


class MapExit(nn.Module):
    """Classifier of a feature map: downsampling blocks, global average, linear layer.

    The number of blocks is the number of times that the network still halves the map.

    Args:
        level: map (N, C, *grid) of a dry batch.
        deepest: deepest level of the same network.
        classes: number of classes.
        norm: normalization of the blocks.
    """

    def __init__(self, level: Tensor, deepest: Tensor, classes: int, norm: Norm):
        super().__init__()
        deepest_map = as_map(deepest)
        channels, width = level.shape[1], deepest_map.shape[1]
        ratio = max(level.shape[2:]) / max(deepest_map.shape[2:])
        halvings = max(0, round(math.log2(ratio)))
        widths = [channels * 2**index for index in range(halvings)] + [width]
        blocks = [
            _downsampling_block(source, target, norm, level.ndim - 2)
            for source, target in itertools.pairwise(widths)
        ]
        self.body = nn.Sequential(*blocks) if blocks else PointwiseConv(channels, width)
        self.head = nn.Linear(width, classes)

    def forward(self, level: Tensor) -> Tensor:
        features = self.body(match_dtype(self, to_float32(as_map(level))))
        logits: Tensor = self.head(mean_positions(features))
        return logits


class TokenExit(nn.Module):
    """Classifier of tokens: patch merging, transformer blocks, linear layer.

    Patches are merged 2x2 until at most ``MAX_SIDE`` are left per side. The linear layer reads the
    first leading token, or the mean of the patches if there is none.

    Args:
        level: tokens (N, L, D) of a dry batch.
        blocks: number of transformer blocks.
        classes: number of classes.
    """

    def __init__(self, level: Tensor, blocks: int, classes: int):
        super().__init__()
        width, side = level.shape[2], as_map(level).shape[2]
        self.merge = nn.ModuleList()
        while side > MAX_SIDE and side % 2 == 0:
            linear = nn.Linear(4 * width, width, bias=False)
            self.merge.append(nn.Sequential(nn.LayerNorm(4 * width), linear, nn.GELU()))
            side //= 2
        heads = 4 if width % 4 == 0 else 1
        self.blocks = nn.Sequential()
        for _ in range(blocks):
            self.blocks.append(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
                )
            )
        self.head = nn.Linear(width, classes)

    def forward(self, level: Tensor) -> Tensor:
        level = match_dtype(self, to_float32(level))
        grid = as_map(level)
        num_leading = level.shape[1] - grid.shape[2] * grid.shape[3]
        for merge in self.merge:
            grid = merge(F.pixel_unshuffle(grid, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        tokens = self.blocks(torch.cat([level[:, :num_leading], grid.flatten(2).mT], 1))
        logits: Tensor = self.head(tokens[:, 0] if num_leading else tokens.mean(1))
        return logits
