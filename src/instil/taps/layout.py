"""Layout of tapped sequences and tokens as feature maps."""

from __future__ import annotations

import math
import re

from torch import Tensor

SEQUENCE, SIGNAL, CHANNELS_LAST = "sequence", "signal", "channels_last"
SIZES = re.compile(r"\d+(x\d+){1,2}")


def require_layout(role: str, layout: str) -> None:
    """Check the layout after the ``@`` of a tap.

    Raises:
        ValueError: for another text than ``sequence``, ``signal``, ``channels_last`` or two or
            three sizes.
    """
    if layout not in (SEQUENCE, SIGNAL, CHANNELS_LAST) and not SIZES.fullmatch(layout):
        raise ValueError(
            f"taps.{role}: unknown layout '@{layout}'. Expected @sequence for (N, T, C), @signal "
            "for (N, C, T), @channels_last for (N, H, W, C), or the grid of tokens, such as "
            "@8x14x14"
        )


def as_layout(values: Tensor, layout: str, tap: str) -> Tensor:
    """Tapped values as a feature map (N, C, *grid).

    Args:
        values: (N, T, C) for ``sequence``, (N, C, T) for ``signal``, (N, H, W, C) for
            ``channels_last``, tokens (N, L, C) for sizes; tokens beyond the grid lead the sequence
            and are dropped.
        layout: ``sequence``, ``signal``, ``channels_last`` or sizes such as ``8x14x14``.
        tap: role and path, for the message.

    Returns:
        (N, C, 1, T), (N, C, H, W) or (N, C, *sizes).

    Raises:
        ValueError: if the values have another number of dimensions, or there are too few tokens.
    """
    if layout == CHANNELS_LAST and values.ndim == 4:
        return values.movedim(-1, 1)
    grid = [int(size) for size in layout.split("x")] if SIZES.fullmatch(layout) else []
    if (
        layout == CHANNELS_LAST
        or values.ndim != 3
        or values.shape[1] < math.prod(grid) * bool(grid)
    ):
        least = f" with at least {math.prod(grid)} tokens" if grid else ""
        count = "four" if layout == CHANNELS_LAST else "three"
        raise ValueError(
            f"{tap}: the values do not fit the layout '@{layout}'. Expected {count} dimensions"
            f"{least}, got shape {tuple(values.shape)}. Tap another module or remove the layout."
        )
    if layout == SIGNAL:
        return values.unsqueeze(2)
    if layout == SEQUENCE:
        return values.mT.unsqueeze(2)
    tokens = values[:, values.shape[1] - math.prod(grid) :]
    return tokens.mT.reshape(len(tokens), -1, *grid)
