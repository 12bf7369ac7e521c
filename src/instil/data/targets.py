"""Images whose label has one real number for each output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.images import ArrayData, LazyData
from instil.data.samples import Facts, RealData


class RealImages(RealData):
    """Images with real labels (N, D); -100 or NaN for a missing one.

    Args:
        images: the images; their own labels are ignored.
        target: real numbers (N,) or (N, D).
        outputs: names of the D outputs; None for their indices.
    """

    noun = "image"

    def __init__(self, images: ArrayData | LazyData, target: Tensor, outputs: Sequence[str] | None):
        self.images = images
        if target.ndim == 1:
            target = target[:, None]
        names = outputs or [str(index) for index in range(target.shape[-1])]
        super().__init__({"index": torch.arange(len(images))}, target, names)

    @property
    def facts(self) -> Facts:
        """``classes`` (the number of outputs), ``channels`` and ``size``."""
        return self.images.facts | {"classes": len(self.classes)}

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": self.images.images(rows)}

    def _take(self, rows: Tensor) -> None:
        self.images = self.images.subset(rows)
