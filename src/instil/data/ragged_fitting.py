"""Texts of different lengths in rows: truncation, and several texts in one row."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instil.data.chat_encoding import LEARNED
from instil.data.token_arrays import TokenArrays

Truncation = Literal["error", "drop", "right", "left", "split"]
Integers = NDArray[np.int64]
CUT = {
    "drop": "are left out",
    "right": "lost their end",
    "left": "lost their beginning",
    "split": "were divided into several rows",
}
"""Ends of the notes on long texts, by truncation."""


class Fit(NamedTuple):
    """Part of a text for each row.

    Attributes:
        start: position of the first token in the arrays (M,).
        stop: position behind the last token (M,).
        text: index of the text (M,).
        notes: sentences about long texts.
    """

    start: Integers
    stop: Integers
    text: Integers
    notes: tuple[str, ...]


def fit_texts(arrays: TokenArrays, texts: Integers, length: int, truncation: Truncation) -> Fit:
    """Return the part of each text that a row of ``length`` tokens holds.

    A row of ``length`` tokens has ``length`` + 1 tokens of a text, the last as a target only.

    Args:
        arrays: tokens of all texts.
        texts: indices of the texts.
        length: length of a row in tokens.
        truncation: handling of longer texts. error: refuse them. drop: leave them out. right: cut
            the end. left: cut the beginning. split: several rows, which overlap by one token.

    Raises:
        ValueError: for long texts with ``error``, and if no text is left.
    """
    start = arrays.start[texts]
    stop = arrays.texts["stop"][texts]
    size = stop - start
    is_long = size > length + 1
    num_long = int(is_long.sum())
    if num_long and truncation == "error":
        raise ValueError(
            f"length: {num_long} of {len(texts)} texts are longer than a row of {length} tokens; "
            f"the longest has {int(size.max())}. Increase data.length, or set data.truncation to "
            "right, left, split or drop"
        )
    if truncation == "split" and num_long:
        start, stop, texts, is_empty = _split(arrays, start, stop, texts, length)
    else:
        is_empty = is_long & (truncation == "drop")
        if truncation == "right":
            stop = np.where(is_long, start + length + 1, stop)
            is_empty = arrays.texts["first_learned"][texts] > length
        elif truncation == "left":
            start = np.where(is_long, stop - length - 1, start)
            is_empty = is_long & (arrays.texts["last_learned"][texts] <= size - length - 1)
    fit = Fit(start[~is_empty], stop[~is_empty], texts[~is_empty], ())
    if not len(fit.text):
        raise ValueError(
            f"length: no text has a learned token in a row of {length} tokens. Increase data.length"
        )
    notes = _notes(num_long, len(size), length, truncation, int(is_empty.sum()))
    return fit._replace(notes=notes)


def _split(
    arrays: TokenArrays, start: Integers, stop: Integers, texts: Integers, length: int
) -> tuple[Integers, Integers, Integers, NDArray[np.bool_]]:
    """Divide long texts; pieces without a learned token are empty."""
    pieces: list[tuple[int, int, int, bool]] = []
    for begin, end, text in zip(start.tolist(), stop.tolist(), texts.tolist(), strict=True):
        if end - begin <= length + 1:
            pieces.append((begin, end, text, False))
            continue
        # Pieces overlap by one token: the last target of one is the first input of the next.
        for first in range(begin, end - 1, length):
            last = min(first + length + 1, end)
            is_learned = (arrays.info[first + 1 : last] & LEARNED).any()
            pieces.append((first, last, text, not is_learned))
    table = np.array(pieces, np.int64).T
    return table[0], table[1], table[2], table[3].astype(bool)


def _notes(
    num_long: int, total: int, length: int, truncation: Truncation, num_empty: int
) -> tuple[str, ...]:
    if not num_long:
        return ()
    first = f"{num_long} of {total} texts are longer than {length} tokens and {CUT[truncation]}"
    if truncation == "drop":
        first = f"{num_long} of {total} texts are longer than {length} tokens and are left out"
        return (first,)
    if not num_empty:
        return (first,)
    return (first, f"{num_empty} rows have no learned token after that and are left out")


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group items so that the lengths of a group sum to at most ``capacity``.

    Best-fit decreasing: the longest item first, into the group with the smallest space that is
    large enough.

    Args:
        lengths: length of each item, at most ``capacity``.
        capacity: largest sum of a group.

    Returns:
        Indices of the items of each group.

    Example:
        >>> best_fit([3, 5, 2, 4], 7)
        [[1, 2], [3, 0]]
    """
    groups: list[list[int]] = []
    groups_by_space: dict[int, list[int]] = {}
    spaces: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        position = bisect_left(spaces, lengths[index])
        if position == len(spaces):
            group, space = len(groups), capacity
            groups.append([])
        else:
            space = spaces[position]
            group = groups_by_space[space].pop()
            if not groups_by_space[space]:
                del spaces[position]
        groups[group].append(index)
        space -= lengths[index]
        if space and not groups_by_space.get(space):
            insort(spaces, space)
        groups_by_space.setdefault(space, []).append(group)
    return groups
