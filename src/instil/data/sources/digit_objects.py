"""Source ``digit_objects``: several handwritten digits in a noisy scene, with their boxes."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from typing_extensions import Doc

from instil.data.digit_placements import NOISE
from instil.data.images import ArrayData
from instil.data.label_kinds import BoxData
from instil.data.object_scenes import SceneObjects, object_scenes
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test scenes."""
SMALLEST = 12
"""Smallest height and width of a digit, in pixels."""


def digit_objects(
    scenes: Annotated[
        int, Ge(1), Doc("number of training scenes; the other splits have held_out each")
    ] = 200,
    held_out: Annotated[int, Ge(1), Doc("number of validation and of test scenes")] = 100,
    size: Annotated[int, Doc("height and width of a scene, in pixels")] = 64,
    largest: Annotated[int, Doc("largest height and width of a digit, in pixels; >= 12")] = 24,
    most: Annotated[int, Ge(1), Doc("largest number of digits in a scene")] = 4,
) -> Splits:
    """Scenes of one or more digits at random positions, for detection with ``kind: boxes``.

    Digits do not overlap, and their sides are uniform from 12 to ``largest`` pixels. Samples have
    ``image`` (N, 1, H, W), ``label`` (N, K) and ``box`` (N, K, 4). The splits use different digits.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: unless 12 <= ``largest`` <= ``size``.
    """
    if not SMALLEST <= largest <= size:
        raise ValueError(
            f"largest: {largest} is out of range. Expected {SMALLEST} <= largest <= size ({size})"
        )
    counts = (scenes, held_out, held_out)
    train, validation, test = (
        _scenes(part, count, seed, size, largest, most)
        for part, count, seed in zip(digit_parts(), counts, SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(
    source: ArrayData, count: int, seed: int, size: int, largest: int, most: int
) -> BoxData:
    generator = torch.Generator().manual_seed(seed)
    background = NOISE * torch.rand(count, 1, size, size, generator=generator)
    image = source.images(torch.arange(len(source)))
    # Ink covers the noise in proportion to its intensity.
    objects = SceneObjects(torch.ones_like(image), image, source.label, source.classes)
    return object_scenes(objects, background, (SMALLEST, largest), most, generator)
