"""Entries at the beginning of GGUF files, read without the rest of the file."""

from __future__ import annotations

import struct
from pathlib import Path

HEADER_BYTES = 1 << 16  # sizes of the model come before the tokens, which are large
STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the values of each type of the format that has a fixed size."""


def gguf_num_layers(path: Path) -> int | None:
    """Number of layers in the header of a GGUF file.

    Args:
        path: the file.

    Returns:
        The number, or None if the file cannot be read or does not have it at its beginning.
    """
    try:
        with path.open("rb") as file:
            return _num_layers(file.read(HEADER_BYTES))
    except (OSError, struct.error, UnicodeDecodeError, KeyError):
        return None


def _num_layers(header: bytes) -> int | None:
    magic, _, _, num_entries = struct.unpack_from("<4sIQQ", header)
    if magic != b"GGUF":
        return None
    position = 24
    for _ in range(num_entries):
        key, position = _string(header, position)
        (kind,) = struct.unpack_from("<I", header, position)
        position += 4
        if kind == ARRAY:
            return None
        if kind == STRING:
            _, position = _string(header, position)
            continue
        if key.endswith(".block_count"):
            return int.from_bytes(header[position : position + SIZES[kind]], "little")
        position += SIZES[kind]
    return None


def _string(header: bytes, position: int) -> tuple[str, int]:
    """Text at a position, and the position behind it."""
    (length,) = struct.unpack_from("<Q", header, position)
    end = position + 8 + length
    if end > len(header):
        raise struct.error("the text goes beyond the header")
    return header[position + 8 : end].decode(), end
