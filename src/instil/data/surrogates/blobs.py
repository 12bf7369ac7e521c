"""Smooth noise images: bright blobs on a dark background."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.data.surrogate_images import ImageSource
from instil.functional.keyed_random import keyed_normal

STREAM = "data.surrogate_blobs"


class Blobs(ImageSource):
    """Coarse normal noise x, enlarged to the image size (bicubic): sigmoid(4 x - 3) in [0, 1].

    On small images a student learns from it about as much as from published generators.
    """

    def __init__(
        self,
        cells: Annotated[
            int,
            Ge(1),
            Doc("values of the coarse noise along the longer side; more cells give smaller blobs"),
        ] = 7,
    ):
        self.cells = cells

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        channels, *size = shape
        height, width = (max(1, round(self.cells * length / max(size))) for length in size)
        values = keyed_normal(moment, channels * height * width, STREAM)
        noise = values.view(-1, channels, height, width)
        return (4 * F.interpolate(noise, size, mode="bicubic") - 3).sigmoid()
