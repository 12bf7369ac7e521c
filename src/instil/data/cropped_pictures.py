"""Parts of pictures, which are cut out and resized on demand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.pictures import Pictures, check_picture_size, picture_name

Edges = tuple[float, ...]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class CroppedPictures:
    """Reader of one part of picture ``row`` in one size; the area outside of the picture is black.

    Args:
        read: reader of the whole pictures, without a size.
        crops: edges of each part.
        size: height and width of the result.
        picture_sizes: width and height of each picture in its annotations; None if unknown.
    """

    read: Pictures
    crops: Sequence[Edges]
    size: tuple[int, int]
    picture_sizes: Sequence[tuple[float, float] | None]

    def __call__(self, row: int) -> Any:
        """Return a Pillow picture; for deep ones float32 (H, W, C) in [0, 1].

        Raises:
            ValueError: for a picture of another size than in its annotations.
        """
        from PIL import Image

        picture = self.read(row)
        is_deep = isinstance(picture, np.ndarray)
        size = picture.shape[1::-1] if is_deep else picture.size
        check_picture_size(picture_name(self.read.open, row), size, self.picture_sizes[row])
        if not is_deep:
            return self._part(picture, self.crops[row])
        bands = np.moveaxis(picture.reshape(*picture.shape[:2], -1), 2, 0)
        parts = [self._part(Image.fromarray(band), self.crops[row]) for band in bands]
        deep: NDArray[np.float32] = np.stack([np.asarray(part) for part in parts], -1).clip(0, 1)
        return deep

    def _part(self, picture: Any, crop: Edges) -> Any:
        from PIL import Image

        left, top, right, bottom = crop
        column, row = math.floor(left), math.floor(top)
        # Pillow resizes parts with fractional edges, but only inside of a picture.
        outer = picture.crop((column, row, math.ceil(right), math.ceil(bottom)))
        inner = (left - column, top - row, right - column, bottom - row)
        return outer.resize(self.size[::-1], Image.Resampling.BILINEAR, box=inner)


def padded_crop(box: Edges, size: tuple[int, int], padding: float) -> Edges:
    """Return the edges of the part of a picture around a box, with the aspect ratio of a size.

    The shorter side of the box grows to the aspect ratio; then both sides grow by ``padding``.

    Args:
        box: edges of the box.
        size: height and width of the image of the part.
        padding: factor of both sides, > 0.

    Example:
        >>> padded_crop((0.0, 0.0, 10.0, 10.0), (20, 10), 1.0)
        (0.0, -5.0, 10.0, 15.0)
    """
    left, top, right, bottom = box
    aspect = size[1] / size[0]
    width = padding * max(right - left, (bottom - top) * aspect)
    height = width / aspect
    column, row = (left + right) / 2, (top + bottom) / 2
    return (column - width / 2, row - height / 2, column + width / 2, row + height / 2)
