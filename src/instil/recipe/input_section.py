"""Section of a recipe with the inputs that a network expects."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Len

from instil.cards import PositiveInt
from instil.recipe.base_sections import Section


class InputConfig(Section):
    """Inputs that a network expects. Null: inputs as they are in the data."""

    size: PositiveInt | Annotated[list[PositiveInt], Len(1, 2)] | None = None
    """Height and width in pixels, or one number for both."""

    mean: list[float] | None = None
    """Mean of each channel, subtracted."""

    std: list[Annotated[float, Gt(0)]] | None = None
    """Standard deviation of each channel, divided by."""

    frames: PositiveInt | None = None
    """Number of frames of a video, evenly spaced in time; for tasks with an axis of frames."""

    points: PositiveInt | None = None
    """Number of points of a point set, evenly spaced; for tasks with an axis of points."""

    views: PositiveInt | None = None
    """Number of views of an object, evenly spaced; for tasks with an axis of views."""
