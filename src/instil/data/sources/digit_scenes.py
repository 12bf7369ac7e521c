"""Scenes of several handwritten digits on a noisy ground, with the class of every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)  # of train, validation and test
INK = 0.3  # of a digit's pixels, those at least so dark are the digit; the rest is ground
NOISE = 0.3  # the ground lies between black and this


def digit_scenes(scenes: int = 400, size: int = 16, most: int = 3) -> Splits:
    """``scenes`` scenes of ``size`` x ``size`` pixels to train on, a third of that for validation and as many for test, from other digits each.

    A scene has two to ``most`` digits in random places; a pixel's class is ``background`` or the digit, -100 (and ``valid`` False) where two
    digits overlap. ``image`` (N, 1, H, W), ``label`` and ``valid`` (N, H, W).

    Raises ValueError where there are fewer than 3 scenes, fewer than 2 digits or no place for one of 8 x 8 pixels.
    """
    if scenes < 3 or most < 2 or size < 8:
        raise ValueError(
            f"at least 3 scenes, 2 digits and 8 pixels are needed, not {scenes}, {most} and {size}"
        )
    counts = (scenes, scenes // 3, scenes // 3)
    train, validation, test = (
        _scenes(part, count, seed, size, most)
        for part, count, seed in zip(digit_parts(), counts, SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(source: ArrayData, count: int, seed: int, size: int, most: int) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    image = NOISE * torch.rand(count, 1, size, size, generator=generator)
    label = torch.zeros(count, size, size, dtype=torch.int64)
    present = torch.randint(2, most + 1, (count,), generator=generator)
    chosen = torch.randint(len(source), (count, most), generator=generator)
    corner = torch.randint(size - 7, (count, most, 2), generator=generator)
    for scene in range(count):
        for number in range(int(present[scene])):
            row, (top, left) = int(chosen[scene, number]), corner[scene, number].tolist()
            place = (scene, slice(top, top + 8), slice(left, left + 8))
            _paste(
                image[:, 0][place], label[place], source.image[row, 0], int(source.label[row]) + 1
            )
    return TensorData(
        {"image": image, "valid": label != UNLABELLED},
        label,
        ["background", *source.classes],
        {"channels": 1, "size": size},
    )


def _paste(image: Tensor, label: Tensor, digit: Tensor, number: int) -> None:
    """Write a digit into this part of a scene, in place."""
    ink = digit >= INK
    label[ink] = torch.where(label[ink] == 0, number, UNLABELLED)
    image[:] = torch.maximum(image, digit)
