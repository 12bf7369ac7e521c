"""Source ``digit_domains``: a choice of digit classes, optionally inverted or rotated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
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
    classes: Annotated[
        list[str] | None, Doc("digits to include, in label order; null: all ten")
    ] = None,
    look: Annotated[
        Look,
        Doc("plain: unchanged; inverted: black and white exchanged; turned: rotated by 90 degrees"),
    ] = "plain",
    rows: Annotated[
        list[int] | None,
        Doc("first and one past the last of the training images to keep; null: all"),
    ] = None,
) -> Splits:
    """Digits of some classes in one of three looks, for transfer between domains.

    Args:
        classes: digits to include, in label order; None for all ten.
        look: transformation of all images.
        rows: half-open range of the training images of ``classes`` to keep; None for all.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a class that is unknown or repeated, and for an empty or invalid range.
    """
    train, validation, test = (
        _select(part, classes or list(part.classes), look) for part in digit_parts()
    )
    if rows is not None:
        if len(rows) != 2 or not 0 <= rows[0] < rows[1] <= len(train):
            raise ValueError(
                f"rows: invalid range. Expected two numbers from 0 to {len(train)}, the first "
                f"below the second, got {rows}"
            )
        train = numbered(train, torch.arange(*rows))
    return Splits(train, validation, test, train.classes, train.kind)


def _select(part: ArrayData, classes: list[str], look: Look) -> ArrayData:
    """Images of ``classes``, with labels in that order."""
    if unknown := [name for name in classes if name not in part.classes]:
        raise ValueError(
            f"classes: unknown digit '{unknown[0]}'.{suggestion(unknown[0], part.classes)}"
        )
    if repeated := [name for name in classes if classes.count(name) > 1]:
        raise ValueError(f"classes: '{repeated[0]}' is listed twice. Expected different digits")
    new_index = [classes.index(name) if name in classes else -1 for name in part.classes]
    label = torch.tensor(new_index)[part.label]
    rows = (label >= 0).nonzero().flatten()
    return ArrayData(LOOKS[look](part.image[rows]), label[rows], classes)
