"""A small U-Net for diffusion models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.modules.denoiser import SCALARS

LARGEST_FREQUENCY = 0.05
"""Radians per unit of a time in 0 to 1000; low, so that derivatives in time stay small."""
SMALLEST_FREQUENCY = 0.00005
FACTORS = {"guidance": 100.0, "end_time": 1.0}
"""Factor of each number before its embedding, which brings it to the range of the time."""


class UNet(nn.Module):
    """Residual blocks at several resolutions with skip connections (Ho et al. 2020, appendix B).

    Each level after the first has half the resolution and twice the width. The embedding of the
    time scales and shifts the normalised features of each block. The last layer is 0 at the start.

    Args:
        channels: number of channels of the image.
        classes: number of classes, without that for no label; 0: unconditional.
        width: width of the first level.
        levels: number of levels.
        depth: residual blocks per level.
        scalars: names of the numbers that are read besides the time.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,
        levels: int,
        depth: int,
        scalars: Sequence[str] = (),
    ):
        super().__init__()
        self.scalars = tuple(scalars)
        self.levels = levels
        embedding = 4 * width
        self.time = _number_embedding(width, embedding)
        self.numbers = nn.ModuleDict({name: _ignored_number(width, embedding) for name in scalars})
        self.label = nn.Embedding(classes + 1, embedding) if classes else None
        widths = [width * 2**level for level in range(levels)]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        down = [Stage(max(width, w // 2), w, embedding, depth) for w in widths]
        up = [Stage(3 * w, w, embedding, depth) for w in reversed(widths[:-1])]
        self.stages = nn.ModuleList([*down, *up])
        self.shrink = nn.ModuleList(nn.Conv2d(w, w, 3, 2, 1) for w in widths[:-1])
        self.norm = _norm(width)
        self.last = _zero_layer(nn.Conv2d(width, channels, 3, padding=1))

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
    ) -> Tensor:
        """Predict (N, C, H, W) from noisy images, times (N,) and classes (N,)."""
        embedding = self.time(time)
        for name, value in scalars.items():
            embedding = embedding + self.numbers[name](FACTORS[name] * value)
        if self.label is not None and label is not None:
            embedding = embedding + self.label(label)
        values = self.first(noisy)
        skips: list[Tensor] = []
        for level in range(self.levels):
            values = self.stages[level](values, embedding)
            if level < self.levels - 1:
                skips.append(values)
                values = self.shrink[level](values)
        for stage in self.stages[self.levels :]:
            skip = skips.pop()
            values = F.interpolate(values, skip.shape[-2:], mode="nearest")
            values = stage(torch.cat([values, skip], 1), embedding)
        result: Tensor = self.last(F.silu(self.norm(values)))
        return result


class Stage(nn.Module):
    """Residual blocks of one resolution.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        embedding: width of the embedding of the time.
        depth: number of blocks.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, depth: int):
        super().__init__()
        widths = [inputs] + [outputs] * (depth - 1)
        self.blocks = nn.ModuleList(Block(w, outputs, embedding) for w in widths)

    def forward(self, values: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            values = block(values, embedding)
        return values


class Block(nn.Module):
    """Two convolutions with a residual connection; the embedding modulates the second norm."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.norms = nn.ModuleList([_norm(inputs), _norm(outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, values: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(F.silu(self.norms[0](values)))
        scale, shift = self.modulation(F.silu(embedding))[..., None, None].chunk(2, 1)
        hidden = self.norms[1](hidden) * (1 + scale) + shift
        result: Tensor = self.skip(values) + self.second(F.silu(hidden))
        return result


class Waves(nn.Module):
    """Sines and cosines of a number (N,) at geometrically spaced frequencies.

    Args:
        width: number of values, even.
    """

    frequencies: Tensor

    def __init__(self, width: int):
        super().__init__()
        exponents = torch.linspace(
            math.log(LARGEST_FREQUENCY), math.log(SMALLEST_FREQUENCY), width // 2
        )
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        angle = value[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], 1)


def _number_embedding(width: int, embedding: int) -> nn.Sequential:
    layers = nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
    return nn.Sequential(Waves(width), *layers)


def _ignored_number(width: int, embedding: int) -> nn.Sequential:
    """Embedding that is 0 at the start: a network ignores a number that was never trained."""
    last = _zero_layer(nn.Linear(embedding, embedding))
    return nn.Sequential(Waves(width), nn.Linear(width, embedding), nn.SiLU(), last)


def _zero_layer(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, width), width)


def unet(
    channels: PositiveInt,
    classes: NonNegativeInt = 0,
    width: PositiveInt = 32,
    levels: PositiveInt = 2,
    depth: PositiveInt = 1,
    scalars: Sequence[str] = (),
) -> nn.Module:
    """Build a U-Net for images of any size.

    Args:
        channels: number of channels of the image.
        classes: number of classes, without that for no label; 0: unconditional.
        width: width of the first level, even.
        levels: number of levels; each halves the resolution.
        depth: residual blocks per level.
        scalars: numbers that are read besides the time: ``guidance`` and ``end_time``.

    Raises:
        ValueError: for an odd width or an unknown number.
    """
    if width % 2 or width < 2:
        raise ValueError(f"width: Expected an even number of at least 2, got {width}")
    for name in scalars:
        if name not in SCALARS:
            raise ValueError(
                f"scalars: unknown number '{name}'. Expected one of {', '.join(SCALARS)}"
            )
    return UNet(channels, classes, width, levels, depth, scalars)
