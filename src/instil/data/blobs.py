"""Smooth noise: bright blobs on a dark ground, which on small images teach as much as published generators."""

from __future__ import annotations

from math import ceil

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Positive, normal
from instil.data.made import Maker

SALT = 12


class Blobs(Maker):
    """Coarse normal noise x, enlarged to the size of the images (bicubic), as sigmoid(4 x - 3) in [0, 1].

    ``cell``: how many pixels one number of the coarse noise becomes, in each direction.
    """

    def __init__(self, cell: Positive = 4.0):
        self.cell = cell

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        coarse = (channels, ceil(height / self.cell), ceil(width / self.cell))
        noise = normal(moment, coarse[0] * coarse[1] * coarse[2], SALT).view(-1, *coarse)
        return (4 * F.interpolate(noise, (height, width), mode="bicubic") - 3).sigmoid()
