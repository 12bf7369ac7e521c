"""Tokens of a text with their characters and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.chat_template import Span

Offsets = NDArray[np.int64]
"""First and last character of each token (T, 2)."""


def covered(offsets: Offsets, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Return the tokens (T,) that have a character in one of the spans."""
    is_covered = np.zeros(len(offsets), bool)
    for start, end in spans:
        is_covered |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return is_covered


def tokens_and_offsets(tokenizer: Any, text: str) -> tuple[NDArray[np.int32], Offsets]:
    """Return the tokens (T,) of a text and their first and last characters (T, 2)."""
    inner = getattr(tokenizer, "inner", None)
    if inner is None:
        data = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        # The first byte of a character has another form than those that follow.
        character = ((data & 0xC0) != 0x80).cumsum() - 1
        return data, np.stack([character, character + 1], 1)
    encoding = inner.encode(text, add_special_tokens=False)
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return np.array(encoding.ids, np.int32), offsets


def bytes_of(text: str, offsets: Offsets) -> NDArray[np.int64]:
    """Return the number of UTF-8 bytes (T,) that each token adds to a text.

    The first of several tokens of one character counts all of its bytes.
    """
    if not len(offsets):
        return np.zeros(0, np.int64)
    ends = np.maximum.accumulate(offsets[:, 1])
    # The last token counts what follows it.
    ends[-1] = len(text)
    if not text.isascii():
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
        ends = np.concatenate([[0], sizes.cumsum()])[ends]
    return np.diff(ends, prepend=0)
