"""Source ``moving_digits``: short videos of handwritten digits that move over a noisy square."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from typing_extensions import Doc

from instil.core import NonNegative
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

DIRECTIONS = ("right", "down", "left", "up")
DIGIT_SIZE = 8
"""Height and width of a digit, in pixels."""

Label = Literal["direction", "digit", "both"]


class Videos(TensorData):
    """Videos (N, C, T, H, W) in memory."""

    noun = "video"


def moving_digits(
    frames: Annotated[int, Ge(2), Doc("number of frames of a video")] = 8,
    size: Annotated[int, Ge(10), Doc("height and width of a frame, in pixels")] = 16,
    speed: Annotated[
        float, Gt(0), Doc("pixels between two frames; a digit stops at the border")
    ] = 1.0,
    noise: Annotated[NonNegative, Doc("standard deviation of the noise of a pixel")] = 0.4,
    label: Annotated[
        Label,
        Doc("classes: the four directions, the ten digits, or both, which gives 40 classes"),
    ] = "direction",
    clips: Annotated[int, Ge(1), Doc("number of videos of each digit image")] = 1,
) -> Splits:
    """Videos of the digits that are part of the package; each moves in one of four directions.

    Samples have ``video`` (N, 1, T, H, W) and ``image`` (N, 1, 8, 8), the digit at rest and without
    noise. No single frame shows the direction.

    Returns:
        Train, validation and test data: 1000, 297 and 500 samples for each of the ``clips``.
    """
    names = _class_names(label)
    parts = []
    for seed, digits in enumerate(digit_parts()):
        generator = torch.Generator().manual_seed(seed)
        # Only the training data grow: more test videos of a digit are not independent.
        copies = clips if seed == 0 else 1
        parts.append(_part(digits, copies, label, (frames, size, speed, noise), generator))
    train, validation, test = parts
    return Splits(train, validation, test, names, "single")


def _class_names(label: Label) -> tuple[str, ...]:
    if label == "direction":
        return DIRECTIONS
    digits = tuple(map(str, range(10)))
    if label == "digit":
        return digits
    return tuple(map(" ".join, itertools.product(digits, DIRECTIONS)))


def _part(
    digits: ArrayData,
    copies: int,
    label: Label,
    motion: tuple[int, int, float, float],
    generator: torch.Generator,
) -> Videos:
    frames, size, speed, noise = motion
    image = digits.image.repeat(copies, 1, 1, 1)
    digit = digits.label.repeat(copies)
    direction = torch.randint(len(DIRECTIONS), (len(image),), generator=generator)
    path = paths(direction, frames, size, speed, generator)
    video = noise * torch.randn(len(image), 1, frames, size, size, generator=generator)
    _draw(video, image, path)
    targets = {
        "direction": direction,
        "digit": digit,
        "both": digit * len(DIRECTIONS) + direction,
    }
    facts = {"channels": 1, "frames": frames, "size": size}
    tensors = {"video": video.clamp_(0, 1), "image": image}
    return Videos(tensors, targets[label], _class_names(label), facts)


def paths(
    direction: Tensor, frames: int, size: int, speed: float, generator: torch.Generator
) -> Tensor:
    """Position of the upper left corner of a digit in each frame.

    A path passes a random point near the centre at a random time.

    Args:
        direction: (N,), indices of ``DIRECTIONS``.
        frames: number of frames.
        size: height and width of a frame.
        speed: pixels between two frames.
        generator: source of the points and times.

    Returns:
        (N, frames, 2), int64: column and row.
    """
    free = size - DIGIT_SIZE
    center = free / 2 + 2 * torch.rand(len(direction), 2, generator=generator) - 1
    middle = 0.3 + 0.4 * torch.rand(len(direction), 1, generator=generator)
    offset = torch.arange(frames) - frames * middle
    angle = direction * (math.pi / 2)
    velocity = speed * torch.stack([angle.cos(), angle.sin()], 1)
    position = center[:, None] + offset[..., None] * velocity[:, None]
    return position.round().long().clamp(0, free)


def _draw(video: Tensor, image: Tensor, path: Tensor) -> None:
    """Add a digit to each frame, in place."""
    for row, corners in enumerate(path.tolist()):
        for frame, (left, top) in enumerate(corners):
            window = video[row, :, frame, top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]
            window += image[row]
