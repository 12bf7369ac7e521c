"""Source ``digit_scenes``: several handwritten digits on a noisy background, labelled by pixel."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.digit_placements import INK, digit_placements
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test scenes."""


def digit_scenes(
    scenes: Annotated[
        int, Doc("number of training scenes; the other splits have a third each")
    ] = 400,
    size: Annotated[int, Doc("height and width of a scene, in pixels; >= 8")] = 16,
    most: Annotated[int, Doc("largest number of digits in a scene; >= 2")] = 3,
) -> Splits:
    """Scenes of two or more digits at random positions, for segmentation.

    The class of a pixel is ``background`` or the digit. Where two digits overlap it is -100, and
    ``valid`` is False. Samples have ``image`` (N, 1, H, W), ``label`` and ``valid`` (N, H, W). The
    splits use different digits.

    Args:
        scenes: number of training scenes; validation and test have a third of it each.
        size: height and width of a scene, in pixels.
        most: largest number of digits in a scene.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for fewer than 3 scenes, 2 digits or 8 pixels.
    """
    for name, value, smallest in (("scenes", scenes, 3), ("most", most, 2), ("size", size, 8)):
        if value < smallest:
            raise ValueError(f"{name}: {value} is too small. Expected at least {smallest}")
    counts = (scenes, scenes // 3, scenes // 3)
    train, validation, test = (
        _scenes(part, count, seed, size, most)
        for part, count, seed in zip(digit_parts(), counts, SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(source: ArrayData, count: int, seed: int, size: int, most: int) -> TensorData:
    image, placements = digit_placements(len(source), count, size, (2, most), seed)
    label = torch.zeros(count, size, size, dtype=torch.int64)
    for window, _, row in placements:
        digit_class = int(source.label[row]) + 1
        _paste(image[:, 0][window], label[window], source.image[row, 0], digit_class)
    return TensorData(
        {"image": image, "valid": label != UNLABELLED},
        label,
        ["background", *source.classes],
        {"channels": 1, "size": size},
    )


def _paste(image: Tensor, label: Tensor, digit: Tensor, digit_class: int) -> None:
    """Draw a digit into a window of a scene, in place."""
    ink = digit >= INK
    label[ink] = torch.where(label[ink] == 0, digit_class, UNLABELLED)
    image[:] = torch.maximum(image, digit)
