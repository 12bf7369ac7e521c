"""Network that predicts the noise in feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.functional.diffusion import TIMES
from instil.modules.connectors import Norm, convolutions

LEAST_WIDTH = 4


class Bottleneck(nn.Module):
    """Three convolutions through a narrow middle, added to what goes in."""

    def __init__(self, channels: int, reduction: int, norm: Norm):
        super().__init__()
        middle = max(LEAST_WIDTH, channels // reduction)
        self.block = convolutions((channels, middle, middle, channels), (1, 3, 1), norm, "norm")

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = values + self.block(values)
        return result


class NoiseModel(nn.Module):
    """Predicts the noise in maps (N, C, H, W), or with ``pointwise`` in logits (N, C, 1, 1), at a time (N,) or (1,)."""

    def __init__(self, channels: int, pointwise: bool, norm: Norm):
        super().__init__()
        self.time = nn.Embedding(TIMES, channels)
        wide = convolutions((channels, 4 * channels, channels), (1, 1), norm, "norm")
        bottlenecks = nn.Sequential(Bottleneck(channels, 4, norm), Bottleneck(channels, 4, norm))
        self.body = wide if pointwise else bottlenecks
        last = (channels, 4 * channels, channels) if pointwise else (channels, channels)
        self.last = convolutions(
            last, (1,) * (len(last) - 1), norm, "plain" if pointwise else "norm"
        )

    def forward(self, values: Tensor, time: Tensor) -> Tensor:
        result: Tensor = self.last(self.body(values + self.time(time)[:, :, None, None]))
        return result
