"""The student trained on the teacher's outputs for white noise."""

from __future__ import annotations

from typing import ClassVar

from instil.baselines.bases.surrogate_baseline import SurrogateBaseline
from instil.core import Card
from instil.data.surrogate_images import ImageSource
from instil.data.surrogates.noise import Noise


class NoiseBaseline(SurrogateBaseline):
    """Student trained with the recipe's objectives on images of white noise."""

    card = Card(
        title="White noise",
        use="Shows whether the images of a data-free method are worth more than white noise.",
    )
    display_name: ClassVar[str] = "White noise"
    noun: ClassVar[str] = "white noise"
    result_of: ClassVar[str | None] = "the teacher's outputs for white noise"
    image_source: ClassVar[type[ImageSource]] = Noise
