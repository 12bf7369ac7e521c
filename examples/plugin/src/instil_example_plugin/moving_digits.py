"""Short videos of handwritten digits that move in one of eight directions."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.data.samples import TensorData
from instil.data.sources.digits import digits
from instil.data.splits import Splits

DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
SIZE = 16
"""Height and width of a frame; a digit has 8 x 8 pixels."""


class Videos(TensorData):
    """Videos (N, T, 1, H, W) in [0, 1] with their direction of motion as label."""

    noun = "video"


def moving_digits(
    frames: Annotated[int, Doc("number of frames of a video")] = 6,
    speed: Annotated[float, Doc("pixels per frame")] = 1.5,
    noise: Annotated[float, Doc("standard deviation of the noise of a pixel")] = 0.4,
) -> Splits:
    """Move the digits that ship with instil. The direction is visible in no single frame."""
    source = digits()
    parts = {}
    for seed, name in enumerate(("train", "validation", "test")):
        samples = getattr(source, name)
        images = samples.inputs(torch.arange(len(samples)))["image"]
        generator = torch.Generator().manual_seed(seed)
        parts[name] = _videos(images, frames, speed, noise, generator)
    return Splits(**parts, classes=DIRECTIONS, kind="single")


def _videos(
    images: Tensor, frames: int, speed: float, noise: float, generator: torch.Generator
) -> Videos:
    label = torch.randint(len(DIRECTIONS), (len(images),), generator=generator)
    angles = label * (2 * math.pi / len(DIRECTIONS))
    # The path goes through a random point near the centre at a random time.
    center = (SIZE - 8) / 2 + 2 * torch.rand(len(images), 2, generator=generator) - 1
    offset = torch.arange(frames) - frames * (
        0.3 + 0.4 * torch.rand(len(images), 1, generator=generator)
    )
    x = (center[:, :1] + speed * offset * angles.cos()[:, None]).round().long()
    y = (center[:, 1:] + speed * offset * angles.sin()[:, None]).round().long()
    video = noise * torch.randn(len(images), frames, 1, SIZE, SIZE, generator=generator)
    for row, image in enumerate(images):
        for frame in range(frames):
            left = min(max(int(x[row, frame]), 0), SIZE - 8)
            top = min(max(int(y[row, frame]), 0), SIZE - 8)
            video[row, frame, :, top : top + 8, left : left + 8] += image
    facts = {"frames": frames, "channels": 1, "size": (SIZE, SIZE)}
    return Videos({"video": video.clamp(0, 1)}, label, DIRECTIONS, facts)
