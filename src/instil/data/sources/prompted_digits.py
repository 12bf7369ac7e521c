"""Source ``prompted_digits``: handwritten digits on a noisy background, each with prompts."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from typing_extensions import Doc

from instil.data.digit_placements import INK, digit_placements
from instil.data.images import ArrayData
from instil.data.prompted_objects import prompted_objects
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


def prompted_digits(
    scenes: Annotated[
        int, Ge(3), Doc("number of training scenes; the other splits have a third each")
    ] = 300,
    size: Annotated[int, Ge(16), Doc("height and width of a scene, in pixels")] = 24,
    most: Annotated[int, Ge(1), Doc("largest number of digits in a scene")] = 3,
) -> Splits:
    """Digits in scenes, for promptable segmentation; a sample is one digit with its prompts.

    Samples have ``image`` (N, 1, H, W), the prompts ``box`` (N, 4) and ``points`` (N, 1, 2), and
    the mask (N, H, W) as label. A digit may cover a part of another one. The splits use different
    digits.

    Args:
        scenes: number of training scenes; validation and test have a third of it each.
        size: height and width of a scene, in pixels.
        most: largest number of digits in a scene.

    Returns:
        Train, validation and test data.
    """
    counts = (scenes, scenes // 3, scenes // 3)
    parts = [
        _objects(part, count, seed, size, most)
        for seed, (part, count) in enumerate(zip(digit_parts(), counts, strict=True))
    ]
    train, held_out, test_data = parts
    return Splits(train, held_out, test_data, train.classes, train.kind)


def _objects(source: ArrayData, count: int, seed: int, size: int, most: int) -> TensorData:
    image, placements = digit_placements(len(source), count, size, (1, most), seed)
    instances = torch.zeros(count, size, size, dtype=torch.int64)
    for window, position, row in placements:
        digit = source.image[row, 0]
        instances[window][digit >= INK] = position + 1
        image[:, 0][window] = torch.maximum(image[:, 0][window], digit)
    return prompted_objects(image, instances, seed, smallest=8)
