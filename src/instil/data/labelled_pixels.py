"""Images with a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.images import ArrayData, LazyData
from instil.data.samples import Facts, Samples


class LabelledPixels(Samples):
    """Base class of images with ``label`` and ``valid`` (N, H, W).

    Args:
        images: the images, in memory or decoded on demand; their own labels are ignored.
        label: (N, H, W), -100 for no label.
        valid: boolean (N, H, W), False for pixels that are ignored.
        classes: names of the classes or outputs.
        index: (N,), identity of each image; None for 0 to N - 1.

    Raises:
        ValueError: for labels of another shape, and values that do not fit.
    """

    noun = "image"
    label_noun = "labels"

    def __init__(
        self,
        images: ArrayData | LazyData,
        label: Tensor,
        valid: Tensor,
        classes: Sequence[str],
        index: Tensor | None = None,
    ):
        if label.ndim != 3 or len(label) != len(images) or label.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"{self.label_noun} have the shape {tuple(label.shape)}. Expected (N, H, W) = "
                f"{(len(images), *images.shape[1:])}, as the images have"
            )
        self.images = images
        self.valid = valid
        super().__init__(label, classes, index)

    @property
    def facts(self) -> Facts:
        """``classes``, ``channels`` and ``size``: one number for square images, else (H, W)."""
        return self.images.facts | {"classes": len(self.classes)}

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """Labels, and the mask of the pixels that count."""
        return self.label, self.valid

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": self.images.images(rows), "valid": self.valid[rows]}

    def _take(self, rows: Tensor) -> None:
        self.images = self.images.subset(rows)
        self.valid = self.valid[rows]


class DepthImages(LabelledPixels):
    """Images whose label is the depth of every pixel, float32 (N, H, W).

    Depths that are not above 0, as the files of sensors have them without a measurement, and NaN
    become -100: no label.

    Args:
        images: the images, in memory or decoded on demand; their own labels are ignored.
        depth: (N, H, W).
        valid: boolean (N, H, W), False for pixels that are ignored; None: all are valid.
        index: (N,), identity of each image; None for 0 to N - 1.

    Raises:
        ValueError: for depths of another shape, or infinite ones.
    """

    label_noun = "depths"

    def __init__(
        self,
        images: ArrayData | LazyData,
        depth: Tensor,
        valid: Tensor | None = None,
        index: Tensor | None = None,
    ):
        if valid is None:
            valid = torch.ones(depth.shape, dtype=torch.bool)
        super().__init__(images, depth, valid, ("depth",), index)

    @property
    def kind(self) -> str:
        """``real``."""
        return "real"

    def _checked(self, label: Tensor) -> Tensor:
        label = label.to(torch.float32)
        if label.isposinf().any():
            row = int(label.isposinf().flatten(1).any(1).nonzero()[0])
            raise ValueError(f"the depth of a pixel of image {row} is infinite")
        return torch.where(label > 0, label, float(UNLABELLED))
