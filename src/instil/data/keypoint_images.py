"""Images whose label has the positions of keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.images import ArrayData, LazyData
from instil.data.samples import Facts, Samples


class KeypointImages(Samples):
    """Images with keypoints, float32 (N, K, 2): column and row in pixels; -100 for no label.

    A batch also has ``valid`` (N, K) and ``image_size`` (N, 2), width and height, and ``entries``.

    Args:
        images: the images, in memory or decoded on demand; their own labels are ignored.
        keypoints: (N, K, 2); NaN becomes -100. A keypoint needs both numbers or none.
        names: names of the keypoints; None for their indices.
        index: (N,), identity of each image; None for 0 to N - 1.
        entries: further entries of a batch, one row per image, such as ``area`` (N,), the area of
            the object in pixels, for the average precision of COCO.

    Raises:
        ValueError: for keypoints or entries of another shape, or infinite keypoints.
    """

    noun = "image"

    def __init__(
        self,
        images: ArrayData | LazyData,
        keypoints: Tensor,
        names: Sequence[str] | None = None,
        index: Tensor | None = None,
        entries: Mapping[str, Tensor] | None = None,
    ):
        if keypoints.ndim != 3 or keypoints.shape[-1] != 2 or len(keypoints) != len(images):
            raise ValueError(
                f"keypoints have the shape {tuple(keypoints.shape)}. Expected (N, K, 2) with N = "
                f"{len(images)}"
            )
        for key, value in (entries or {}).items():
            if len(value) != len(images):
                raise ValueError(f"{key} has {len(value)} rows. Expected one for each image")
        self.images = images
        self.entries = dict(entries or {})
        names = names or [str(index) for index in range(keypoints.shape[1])]
        super().__init__(keypoints, names, index)

    @property
    def kind(self) -> str:
        """``real``."""
        return "real"

    @property
    def facts(self) -> Facts:
        """``classes`` (the number of keypoints), ``channels`` and ``size``."""
        return self.images.facts | {"classes": len(self.classes)}

    def inputs(self, rows: Tensor) -> Batch:
        image = self.images.images(rows)
        height, width = image.shape[-2:]
        return {
            "image": image,
            "valid": torch.ones(len(rows), len(self.classes), dtype=torch.bool),
            "image_size": torch.tensor([[width, height]]).float().expand(len(rows), 2),
            **{key: value[rows] for key, value in self.entries.items()},
        }

    def _take(self, rows: Tensor) -> None:
        self.images = self.images.subset(rows)
        self.entries = {key: value[rows] for key, value in self.entries.items()}

    def _checked(self, label: Tensor) -> Tensor:
        label = label.to(torch.float32).nan_to_num(UNLABELLED, torch.inf, -torch.inf)
        if label.shape[1:] != (len(self.classes), 2):
            raise ValueError(
                f"keypoints have the shape {tuple(label.shape)}. Expected (N, "
                f"{len(self.classes)}, 2)"
            )
        if label.isinf().any():
            row = int(label.isinf().flatten(1).any(1).nonzero()[0])
            raise ValueError(f"a keypoint of image {row} is infinite")
        is_unknown = (label == UNLABELLED).any(-1, keepdim=True)
        return label.masked_fill(is_unknown, UNLABELLED)
