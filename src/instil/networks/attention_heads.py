"""Check of the width of a network with attention."""

from __future__ import annotations


def check_heads(width: int, heads: int) -> None:
    """Check that attention heads share the width of a network evenly.

    Args:
        width: number of channels.
        heads: number of attention heads.

    Raises:
        ValueError: if ``width`` is not a multiple of ``heads``.
    """
    if width % heads:
        raise ValueError(f"width: Expected a multiple of heads ({heads}), got {width}")
