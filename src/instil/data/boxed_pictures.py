"""Pictures that are decoded on demand, with any number of boxes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.images import LazyData
from instil.data.label_kinds import BoxData, padded
from instil.data.pictures import Files, check_picture_size, upright


@dataclass(frozen=True)
class AnnotatedFiles(Files):
    """Function that opens a picture file by its row, and checks its size.

    Boxes of annotations of another size would lie in other parts of the picture.

    Args:
        paths: picture files.
        sizes: width and height of each picture in its annotations; None if they are unknown.
    """

    sizes: tuple[tuple[float, float] | None, ...]

    def __call__(self, row: int) -> Any:
        """Return a Pillow picture.

        Raises:
            ValueError: for an unreadable picture, and one of another size than in its annotations.
        """
        picture = super().__call__(row)
        check_picture_size(str(self.paths[row]), upright(picture).size, self.sizes[row])
        return picture


class BoxedPictures(BoxData):
    """Pictures with boxes; a batch is that of ``BoxData`` with ``image``.

    If a picture has groups of objects, a batch has ``group_label`` (N, G) and ``group_box``
    (N, G, 4) too, padded with -100. Evaluations ignore what a detector finds there.

    Args:
        images: the pictures; their own labels are ignored.
        boxes: for each picture, (k, 4) edges left, top, right and bottom in pixels.
        labels: for each picture, class indices (k,).
        classes: class names.
        groups: for each picture, boxes and labels of its groups of objects; empty: no groups.

    Raises:
        ValueError: for boxes of another shape or without an area, and labels that do not fit them.
    """

    noun = "image"

    def __init__(
        self,
        images: LazyData,
        boxes: Sequence[Any],
        labels: Sequence[Any],
        classes: Sequence[str],
        groups: Sequence[tuple[Any, Any]] = (),
    ):
        self.images = images
        self.groups: Batch = {}
        if any(len(label) for _, label in groups):
            self.groups["group_label"] = padded([label for _, label in groups], ()).long()
            self.groups["group_box"] = padded([box for box, _ in groups], (4,)).float()
        super().__init__({}, boxes, labels, classes, images.facts | {"classes": len(classes)})

    @property
    def digest_values(self) -> tuple[Tensor, ...]:
        """``label``, ``box`` and ``num_boxes``, and the groups of objects."""
        return *super().digest_values, *self.groups.values()

    def __getitems__(self, rows: Tensor | Sequence[int]) -> Batch:
        """Return the batch of these rows, with the groups of objects."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        groups = {key: value[rows] for key, value in self.groups.items()}
        return super().__getitems__(rows) | groups

    def inputs(self, rows: Tensor) -> Batch:
        return {"image": self.images.images(rows)}

    def _take(self, rows: Tensor) -> None:
        # The pictures themselves stay undecoded.
        self.images = self.images.subset(rows)
        self.box = self.box[rows]
        self.num_boxes = self.num_boxes[rows]
        self.groups = {key: value[rows] for key, value in self.groups.items()}
