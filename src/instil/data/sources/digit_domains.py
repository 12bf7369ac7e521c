"""The package's digits, some of their classes, or in another look: where knowledge comes from that is used elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from instil.core import closest
from instil.data.images import ArrayData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits, numbered

Look = Literal["plain", "inverted", "turned"]
LOOKS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda image: image,
    "inverted": lambda image: 1 - image,
    "turned": lambda image: image.rot90(1, (2, 3)),
}


def digit_domains(
    classes: list[str] | None = None, look: Look = "plain", rows: list[int] | None = None
) -> Splits:
    """``classes``, in this order (null: all ten), as they are, with black and white exchanged or ``turned`` by 90 degrees.

    ``rows``: of the training images of these classes only those from the first of two numbers to before the second. Raises ValueError for classes
    that there are not or that come twice, and for rows that leave nothing.
    """
    train, validation, test = (
        _of(part, classes or list(part.classes), look) for part in digit_parts()
    )
    if rows is not None:
        if len(rows) != 2 or not 0 <= rows[0] < rows[1] <= len(train):
            raise ValueError(
                f"rows: two numbers were expected, from 0 to {len(train)}, the first below the second, not {rows}"
            )
        train = numbered(train, torch.arange(*rows))
    return Splits(train, validation, test, train.classes, train.kind)


def _of(part: ArrayData, classes: list[str], look: Look) -> ArrayData:
    """The images of these classes, numbered anew."""
    if unknown := [name for name in classes if name not in part.classes]:
        raise ValueError(
            f"classes: there is no digit '{unknown[0]}'; {closest(unknown[0], part.classes)}"
        )
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise ValueError(f"classes: '{twice[0]}' is there twice")
    number = torch.tensor(
        [classes.index(name) if name in classes else -1 for name in part.classes]
    )[part.label]
    kept = (number >= 0).nonzero().flatten()
    return ArrayData(LOOKS[look](part.image[kept]), number[kept], classes)
