"""White noise: what any way of making images must beat."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, keyed_uniform
from instil.data.surrogate_images import ImageSource

SALT = 11


class Noise(ImageSource):
    """Every value of every pixel anew, all of [0, 1] alike."""

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        return keyed_uniform(moment, channels * height * width, SALT).view(-1, *shape)
