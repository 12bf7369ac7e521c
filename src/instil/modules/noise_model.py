"""Network that predicts the noise in feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.functional.diffusion.features import TIMES
from instil.functional.pooling import expand_positions
from instil.modules.connectors import Norm, convolutions

LEAST_WIDTH = 4


class Bottleneck(nn.Module):
    """Residual block of three convolutions with a narrow middle.

    Args:
        channels: width of input and result.
        reduction: divisor of the width in the middle, which is at least ``LEAST_WIDTH``.
        norm: normalization of the convolutions.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, channels: int, reduction: int, norm: Norm, dims: int = 2):
        super().__init__()
        middle = max(LEAST_WIDTH, channels // reduction)
        widths = (channels, middle, middle, channels)
        self.block = convolutions(widths, (1, 3, 1), norm, "norm", dims)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = values + self.block(values)
        return result


class NoiseModel(nn.Module):
    """Network that predicts the noise in maps (N, C, *grid) at a time (N,) or (1,).

    Args:
        channels: number of channels.
        pointwise: True for logits (N, C, 1, 1): wide 1x1 convolutions instead of bottlenecks.
        norm: normalization of the convolutions.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, channels: int, pointwise: bool, norm: Norm, dims: int = 2):
        super().__init__()
        self.time = nn.Embedding(TIMES, channels)
        # Both bodies are built, whichever is used: the random state after it stays the same.
        wide = convolutions((channels, 4 * channels, channels), (1, 1), norm, "norm")
        bottlenecks = nn.Sequential(
            Bottleneck(channels, 4, norm, dims), Bottleneck(channels, 4, norm, dims)
        )
        self.body = wide if pointwise else bottlenecks
        last = (channels, 4 * channels, channels) if pointwise else (channels, channels)
        kernels = (1,) * (len(last) - 1)
        self.last = convolutions(last, kernels, norm, "plain" if pointwise else "norm")

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        embedded = values + expand_positions(self.time(time), values)
        noise: Tensor = self.last(self.body(embedded))
        return noise
