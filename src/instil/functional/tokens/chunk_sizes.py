"""Sizes of the parts in which token losses are computed, by device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

CHUNK = {"cpu": 3 * 2**22, "cuda": 2**27}
"""Number of logits per side that exist at a time if a matrix product computes them."""
BLOCK = {"cpu": 2**18, "cuda": 2**27}
"""Number of logits that element-wise operations process at a time."""


@contextlib.contextmanager
def sizes_of_device(device: str) -> Iterator[None]:
    """Use the sizes of another type of device on the CPU, to forecast its memory.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    own = CHUNK["cpu"], BLOCK["cpu"]
    CHUNK["cpu"], BLOCK["cpu"] = CHUNK[device], BLOCK[device]
    try:
        yield
    finally:
        CHUNK["cpu"], BLOCK["cpu"] = own
