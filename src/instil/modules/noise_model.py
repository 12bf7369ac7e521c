"""Network that predicts the noise in feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.functional.diffusion import TIMES
from instil.modules.connectors import Norm, convolutions

LEAST_WIDTH = 4


class Bottleneck(nn.Module):
    """Residual block of three convolutions with a narrow middle.

    Args:
        channels: width of input and result.
        reduction: divisor of the width in the middle, which is at least ``LEAST_WIDTH``.
        norm: normalization of the convolutions.
    """

    def __init__(self, channels: int, reduction: int, norm: Norm):
        super().__init__()
        middle = max(LEAST_WIDTH, channels // reduction)
        self.block = convolutions((channels, middle, middle, channels), (1, 3, 1), norm, "norm")

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = values + self.block(values)
        return result


class NoiseModel(nn.Module):
    """Network that predicts the noise in maps (N, C, H, W) at a time (N,) or (1,).

    Args:
        channels: number of channels.
        pointwise: True for logits (N, C, 1, 1): wide 1x1 convolutions instead of bottlenecks.
        norm: normalization of the convolutions.
    """

    def __init__(self, channels: int, pointwise: bool, norm: Norm):
        super().__init__()
        self.time = nn.Embedding(TIMES, channels)
        # Both bodies are built, whichever is used: the random state after it stays the same.
        wide = convolutions((channels, 4 * channels, channels), (1, 1), norm, "norm")
        bottlenecks = nn.Sequential(Bottleneck(channels, 4, norm), Bottleneck(channels, 4, norm))
        self.body = wide if pointwise else bottlenecks
        last = (channels, 4 * channels, channels) if pointwise else (channels, channels)
        kernels = (1,) * (len(last) - 1)
        self.last = convolutions(last, kernels, norm, "plain" if pointwise else "norm")

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        embedded = values + self.time(time)[:, :, None, None]
        noise: Tensor = self.last(self.body(embedded))
        return noise
