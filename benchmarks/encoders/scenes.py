"""Drawings of emoji on varied backgrounds, with the mask of each drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.prompted_objects import prompted_objects
from instil.data.samples import TensorData
from instil.data.splits import Splits

SIDE = 24
"""Height and width of a scene."""
SIDES = (10, 13)
"""Smallest and largest height of a drawing."""
WHITE = 0.97
"""Smallest intensity of the paper around a drawing."""


def emoji_scenes(
    folder: Annotated[str, Doc("folder of the data sets")],
    scenes: Annotated[int, Ge(1), Doc("number of training scenes")] = 400,
) -> Splits:
    """Two drawings of emoji on a smooth random background; a sample is one drawing.

    The splits have different emoji. Validation and test have 60 and 150 scenes.
    """
    with np.load(Path(folder) / "emoji.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 1, 4, 2, 3)
        split = torch.from_numpy(file["split"])
    parts = []
    for index, count in enumerate((scenes, 60, 150)):
        parts.append(_scenes(images[split == index].flatten(0, 1), count, index))
    return Splits(*parts, parts[0].classes, parts[0].kind)


def _scenes(drawings: Tensor, count: int, seed: int) -> TensorData:
    # The order of the draws decides the data: backgrounds, drawings, sides, corners.
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    image = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)
    chosen = torch.randint(len(drawings), (count, 2), generator=generator)
    sides = torch.randint(SIDES[0], SIDES[1] + 1, (count, 2), generator=generator)
    corners = torch.rand(count, 2, 2, generator=generator)
    instances = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for scene in range(count):
        for position in range(2):
            side = int(sides[scene, position])
            drawing = drawings[int(chosen[scene, position])][None].float() / 255
            drawing = F.interpolate(drawing, (side, side), mode="bilinear", antialias=True)[0]
            top, left = (corners[scene, position] * (SIDE - side + 1)).long().tolist()
            window = (scene, slice(top, top + side), slice(left, left + side))
            mask = _inside(drawing.amin(0) < WHITE)
            instances[window][mask] = position + 1
            image[scene, :, window[1], window[2]][:, mask] = drawing[:, mask]
    return prompted_objects(image, instances, seed, smallest=20)


def _inside(ink: Tensor) -> Tensor:
    """Pixels between the first and the last ink of their row and of their column."""
    between = []
    for axis in (0, 1):
        before = ink.int().cummax(axis).values
        after = ink.int().flip(axis).cummax(axis).values.flip(axis)
        between.append((before & after).bool())
    return between[0] & between[1]
