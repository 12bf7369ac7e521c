"""Surrogate image sets for data-free distillation: synthetic images, or those of another source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.augmentation import Augmentation
from instil.data.samples import Facts, Samples


class ImageSource:
    """Base class of functions from keys to images; its parameters are options of a recipe."""

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        """Return the images of a batch, which depend on its keys alone.

        Args:
            moment: ``index`` and ``seed`` of the images.
            shape: (C, H, W) of one image.

        Returns:
            (N, C, H, W), float32 in [0, 1].
        """
        raise NotImplementedError


class SurrogateDataset(Samples):
    """Base class of unlabelled image sets with the facts and the label kind of another data set.

    Args:
        like: the data set that is replaced.
        count: number of samples.

    Raises:
        ValueError: if the samples of ``like`` are not images.
    """

    noun = "image"
    augmentation = Augmentation

    def __init__(self, like: Samples, count: int):
        key, image = next(iter(like.inputs(torch.zeros(1, dtype=torch.int64)).items()))
        if key != "image" or image.ndim != 4:
            raise ValueError(
                f"the samples are {key} of shape {tuple(image.shape)}. Expected images (N, C, H, W)"
            )
        self._facts = like.facts
        self._kind = like.kind
        self.shape = tuple(image.shape[1:])
        label = like.label.new_full((count, *like.label.shape[1:]), UNLABELLED)
        super().__init__(label, like.classes)

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def kind(self) -> str:
        """Label kind of the data set that is replaced."""
        return self._kind

    def _checked(self, label: Tensor) -> Tensor:
        return label


class SyntheticImages(SurrogateDataset):
    """Images computed from the index and view of each sample.

    ``inputs`` returns black images. ``materialize`` replaces them in a batch, where the view is
    known.

    Args:
        like: the data set that is replaced.
        count: number of samples.
        image_source: function that computes the images.
    """

    def __init__(self, like: Samples, count: int, image_source: ImageSource):
        super().__init__(like, count)
        self.image_source = image_source

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": torch.zeros(1, *self.shape).expand(len(rows), -1, -1, -1)}

    def materialize(self, batch: Batch, seed: int) -> Batch:
        """Return the batch with the images of its ``index`` and ``view``, both int64 (N,)."""
        # The view moves the index to a range of its own: every view has other images.
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": seed}
        return batch | {"image": self.image_source(moment, self.shape)}

    def _take(self, rows: Tensor) -> None:
        """Keep nothing: images depend on the index alone."""


class ForeignImages(SurrogateDataset):
    """Images of another data set, converted to the shape of the replaced one.

    Images are resized (bilinear, antialiased). Grey images are repeated over the channels, and
    colour images are averaged to grey.

    Args:
        like: the data set that is replaced.
        source: data set whose images are used.
    """

    def __init__(self, like: Samples, source: Samples):
        super().__init__(like, len(source))
        self.source = source

    def inputs(self, rows: Tensor) -> Batch:
        image: Tensor = self.source.inputs(rows)["image"]
        channels, *size = self.shape
        if image.shape[1] != channels:
            image = image.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        if list(image.shape[2:]) != size:
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        return {"image": image}

    def _take(self, rows: Tensor) -> None:
        self.source = self.source.subset(rows)
