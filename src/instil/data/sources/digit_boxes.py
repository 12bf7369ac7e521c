"""Source ``digit_boxes``: one handwritten digit in a noisy scene, with its class and its box."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test scenes."""
INK = 0.3
"""Smallest intensity of a pixel that belongs to a digit."""
NOISE = 0.3
"""Largest intensity of the background noise."""
SMALLEST = 8
"""Smallest height and width of a digit, in pixels."""


def digit_boxes(
    size: Annotated[int, Doc("height and width of a scene, in pixels")] = 16,
    largest: Annotated[int, Doc("largest height and width of a digit, in pixels; >= 8")] = 14,
) -> Splits:
    """One resized digit per scene, at a random position, for detection.

    Height and width of a digit are independent and uniform from 8 to ``largest`` pixels. Samples
    have ``image`` (N, 1, H, W), ``label`` (N,) and ``box`` (N, 4): the left, top, right and bottom
    edge of the ink, in pixels from the left and the top. Each edge falls on one of ``bins`` =
    ``size`` + 1 positions.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: unless 8 <= ``largest`` <= ``size``.
    """
    if not SMALLEST <= largest <= size:
        raise ValueError(
            f"largest: {largest} is out of range. Expected {SMALLEST} <= largest <= size ({size})"
        )
    train, validation, test = (
        _scenes(part, seed, size, largest) for part, seed in zip(digit_parts(), SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(source: ArrayData, seed: int, size: int, largest: int) -> TensorData:
    # The order of the draws decides the data of every seed: background, sizes, corners.
    generator = torch.Generator().manual_seed(seed)
    image = NOISE * torch.rand(len(source), 1, size, size, generator=generator)
    shape = torch.randint(SMALLEST, largest + 1, (len(source), 2), generator=generator)
    corner = (torch.rand(len(source), 2, generator=generator) * (size + 1 - shape)).long()
    box = torch.zeros(len(source), 4)
    for row, ((height, width), (top, left)) in enumerate(
        zip(shape.tolist(), corner.tolist(), strict=True)
    ):
        digit = F.interpolate(
            source.image[row : row + 1], (height, width), mode="bilinear", antialias=True
        )[0, 0]
        window = image[row, 0, top : top + height, left : left + width]
        window[:] = torch.maximum(window, digit)
        box[row] = _edges(digit >= INK) + torch.tensor([left, top, left, top])
    return TensorData(
        {"image": image, "box": box},
        source.label,
        source.classes,
        {"channels": 1, "size": size, "bins": size + 1},
    )


def _edges(ink: Tensor) -> Tensor:
    """Left, top, right and bottom edge of the True pixels of a mask (H, W)."""
    row, column = ink.nonzero().T
    return torch.stack([column.min(), row.min(), column.max() + 1, row.max() + 1])
