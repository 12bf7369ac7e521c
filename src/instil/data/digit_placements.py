"""Random positions of handwritten digits in scenes with a noisy background."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

INK = 0.3
"""Smallest intensity of a pixel that belongs to a digit; the rest is background."""
NOISE = 0.3
"""Largest intensity of the background noise."""
SIDE = 8
"""Height and width of a digit."""


class Placement(NamedTuple):
    """Position of a digit.

    Attributes:
        window: index of its pixels in maps (N, H, W) of all scenes.
        position: index of the digit in its scene.
        row: row of the digit in the data.
    """

    window: tuple[int, slice, slice]
    position: int
    row: int


def digit_placements(
    num_rows: int, count: int, size: int, numbers: tuple[int, int], seed: int
) -> tuple[Tensor, list[Placement]]:
    """Draw backgrounds and the positions of digits.

    Args:
        num_rows: number of digits in the data.
        count: number of scenes.
        size: height and width of a scene, in pixels.
        numbers: smallest and largest number of digits in a scene.
        seed: seed of all draws.

    Returns:
        Backgrounds (N, 1, H, W), and the digits in the order in which they are pasted.
    """
    # The order of the draws decides the data: background, numbers of digits, digits, corners.
    generator = torch.Generator().manual_seed(seed)
    least, most = numbers
    image = NOISE * torch.rand(count, 1, size, size, generator=generator)
    num_digits = torch.randint(least, most + 1, (count,), generator=generator)
    chosen = torch.randint(num_rows, (count, most), generator=generator)
    corner = torch.randint(size - SIDE + 1, (count, most, 2), generator=generator)
    placements = []
    for scene in range(count):
        for index in range(int(num_digits[scene])):
            top, left = corner[scene, index].tolist()
            window = scene, slice(top, top + SIDE), slice(left, left + SIDE)
            placements.append(Placement(window, index, int(chosen[scene, index])))
    return image, placements
