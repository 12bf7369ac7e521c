"""White noise images, the baseline for all other surrogate images."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch
from instil.data.surrogate_images import ImageSource
from instil.functional.keyed_random import keyed_uniform


class Noise(ImageSource):
    """Independent uniform noise in [0, 1] for every value of every pixel."""

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        return keyed_uniform(moment, channels * height * width, "data.surrogate_noise").view(
            -1, *shape
        )
