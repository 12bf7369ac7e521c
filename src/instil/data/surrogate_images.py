"""Samples that nobody took: images that are made or borrowed, where those that a student would learn from may not be opened."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.samples import Facts, Samples


class ImageSource:
    """Makes the images of a batch from nothing but ``seed``, ``index`` and ``view``, float32 in [0, 1]; its options are those of the recipe."""

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        """(N, C, H, W) for ``shape`` = (C, H, W)."""
        raise NotImplementedError


class SurrogateDataset(Samples):
    """So many samples with the facts and the kind of label of ``like``, and without a label; their images come from elsewhere.

    Raises ValueError where ``like`` is no data of images.
    """

    noun = "image"

    def __init__(self, like: Samples, count: int):
        image = next(iter(like.inputs(torch.zeros(1, dtype=torch.int64)).items()))
        if image[0] != "image" or image[1].ndim != 4:
            raise ValueError(
                f"only images can be made, (N, C, H, W); these samples are {image[0]} of shape {tuple(image[1].shape)}"
            )
        self._facts, self._kind, self.shape = like.facts, like.kind, tuple(image[1].shape[1:])
        super().__init__(
            like.label.new_full((count, *like.label.shape[1:]), UNLABELLED), like.classes
        )

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def kind(self) -> str:
        """As of the samples that these stand for."""
        return self._kind

    def _checked(self, label: Tensor) -> Tensor:
        return label


class SyntheticImages(SurrogateDataset):
    """Blank images, on which ``materialize`` puts other ones in each view."""

    def __init__(self, like: Samples, count: int, image_source: ImageSource):
        super().__init__(like, count)
        self.image_source = image_source

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": torch.zeros(1, *self.shape).expand(len(rows), -1, -1, -1)}

    def materialize(self, batch: Batch, seed: int) -> Batch:
        """The batch with the images of its ``index`` and ``view``."""
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": seed}
        return batch | {"image": self.image_source(moment, self.shape)}

    def _take(self, rows: Tensor) -> None:
        pass


class ForeignImages(SurrogateDataset):
    """The images of other samples, in the shape of ``like``: resized (bilinear, antialiased), grey for colour and the mean of colours for grey."""

    def __init__(self, like: Samples, source: Samples):
        super().__init__(like, len(source))
        self.source = source

    def inputs(self, rows: Tensor) -> Batch:
        image: Tensor = self.source.inputs(rows)["image"]
        channels, *size = self.shape
        if image.shape[1] != channels:
            image = image.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        return {
            "image": image
            if list(image.shape[2:]) == size
            else F.interpolate(image, size, mode="bilinear", antialias=True)
        }

    def _take(self, rows: Tensor) -> None:
        self.source = self.source.subset(rows)
