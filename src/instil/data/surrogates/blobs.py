"""Smooth noise: bright blobs on a dark ground, which on small images teach as much as published generators."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, keyed_normal
from instil.data.surrogate_images import ImageSource

SALT = 12


class Blobs(ImageSource):
    """Coarse normal noise x, enlarged to the size of the images (bicubic), as sigmoid(4 x - 3) in [0, 1].

    ``cells``: how many numbers of the coarse noise there are along the longer side: the more, the smaller the blobs.
    """

    def __init__(self, cells: Annotated[int, Ge(1)] = 7):
        self.cells = cells

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        channels, *size = shape
        height, width = (max(1, round(self.cells * length / max(size))) for length in size)
        noise = keyed_normal(moment, channels * height * width, SALT).view(
            -1, channels, height, width
        )
        return (4 * F.interpolate(noise, size, mode="bicubic") - 3).sigmoid()
