"""The student trained on the teacher's outputs for smooth noise."""

from __future__ import annotations

from typing import ClassVar

from instil.baselines.bases.surrogate_baseline import SurrogateBaseline
from instil.core import Card
from instil.data.surrogate_images import ImageSource
from instil.data.surrogates.blobs import Blobs


class BlobsBaseline(SurrogateBaseline):
    """Student trained with the recipe's objectives on images of smooth noise."""

    card = Card(
        title="Smooth noise",
        use="Shows whether the images of a data-free method are worth more than smooth noise.",
    )
    display_name: ClassVar[str] = "Smooth noise"
    noun: ClassVar[str] = "smooth noise"
    result_of: ClassVar[str | None] = "the teacher's outputs for smooth noise"
    image_source: ClassVar[type[ImageSource]] = Blobs
