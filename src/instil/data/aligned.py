"""Rows of one text in the tokens of two tokenizers: what the student reads, what the teacher reads, and the spans that both end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.alignment import same_tokens, spans
from instil.data.documents import Document
from instil.data.splits import Splits
from instil.data.text import Row, TokenRows, pruned, too_long
from instil.data.tokenizers import Tokenizer

Side = tuple[list[int], list[int]]
"""Tokens, and the bytes of each."""
Span = tuple[Side, Side]
"""What the student's and the teacher's tokenizer make of the same bytes."""


class Aligned(NamedTuple):
    """One row of either side, and the spans of its learned tokens."""

    rows: tuple[Row, Row]
    spans: list[Span]


class AlignedRows(TokenRows):
    """The student's rows; every key of the teacher's comes too, beginning with ``teacher_``.

    ``span`` and ``teacher_span`` (N, T) number, row by row, the spans to which the labels belong, -1 where none is learned. ``same_tokens``
    (N, P, 2) are the numbers (teacher, student) of tokens that are the same text, alike for all rows.
    """

    def __init__(
        self,
        rows: Sequence[Aligned],
        mine: TokenRows,
        theirs: TokenRows,
        same: Sequence[tuple[int, int]],
    ):
        vars(self).update(vars(mine))  # these are the student's rows, and more
        self.theirs, self.same = theirs, torch.tensor(same, dtype=torch.int64).view(-1, 2)
        for side, part in enumerate((mine, theirs)):
            part.tensors["span"] = torch.full(part.label.shape, -1)
            for number, row in enumerate(rows):
                numbers = [place for place, span in enumerate(row.spans) for _ in span[side][0]]
                start = (
                    row.rows[side][2] - 1
                )  # the position whose label is the first that is learned
                part.tensors["span"][number, start : start + len(numbers)] = torch.tensor(numbers)

    def inputs(self, rows: Tensor) -> Batch:
        theirs = self.theirs.inputs(rows) | {"label": self.theirs.label[rows]}
        same = self.same.expand(len(rows), *self.same.shape)
        return (
            super().inputs(rows)
            | {f"teacher_{key}": value for key, value in theirs.items()}
            | {"same_tokens": same}
        )

    def _take(self, rows: Tensor) -> None:
        self.tensors = TokenRows.inputs(self, rows)
        self.theirs = self.theirs.subset(rows)


def of_teacher(splits: Splits) -> Splits:
    """The same texts as a teacher reads them that has a tokenizer of its own."""
    train, validation, test = (
        part.theirs if isinstance(part, AlignedRows) else part
        for part in (splits.train, splits.validation, splits.test)
    )
    return Splits(train, validation, test, splits.classes, splits.kind)


def read_by_teacher(batch: Batch) -> Batch:
    """A batch as a teacher reads it that has a tokenizer of its own: what is the student's gives way; one that is the teacher's already stays."""
    theirs = {
        key.removeprefix("teacher_"): value
        for key, value in batch.items()
        if key.startswith("teacher_")
    }
    kept = {
        key: value
        for key, value in batch.items()
        if not key.startswith("teacher_") and key not in theirs
    }
    return kept | theirs if theirs else batch


def aligned(
    parts: Sequence[Sequence[Document]],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    limits: Sequence[int | None],
    prune: bool = False,
    cut: bool = False,
) -> Splits:
    """Documents in rows of at most so many tokens of student and teacher, cut only where both have an end.

    Every span is learned once, but for those that are longer than a row. The other arguments are those of ``text``.
    """
    taken = [
        list(islice(_rows(part, tokenizers, lengths, cut), limit))
        for part, limit in zip(parts, limits, strict=True)
    ]
    if not all(taken):
        raise ValueError("the texts of one part have no span that is shorter than a row")
    sides, kept = [], []
    for side, tokenizer in enumerate(tokenizers):
        rows, tokens = pruned(
            [[row.rows[side] for row in part] for part in taken], tokenizer, prune
        )
        sides.append(
            [
                TokenRows(part, lengths[side], len(tokens) or tokenizer.size, tokenizer, tokens)
                for part in rows
            ]
        )
        kept.append({token: number for number, token in enumerate(tokens or range(tokenizer.size))})
    pairs = [
        (kept[1][theirs], kept[0][mine])
        for theirs, mine in same_tokens(*tokenizers)
        if theirs in kept[1] and mine in kept[0]
    ]
    train, validation, test = (
        AlignedRows(rows, mine, theirs, pairs)
        for rows, mine, theirs in zip(taken, *sides, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _rows(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    cut: bool,
) -> Iterator[Aligned]:
    answers = any(document.prompt is not None for document in part)
    yield from (
        _answers(part, tokenizers, lengths, cut) if answers else _packed(part, tokenizers, lengths)
    )


def _packed(
    part: Sequence[Document], tokenizers: tuple[Tokenizer, Tokenizer], lengths: tuple[int, int]
) -> Iterator[Aligned]:
    """Texts one after another; a row begins with the last token of what came before it."""
    found: list[Span] = []
    before, room = [[one.end] for one in tokenizers], list(lengths)
    for span in (span for document in part for span in _spans(document.text, tokenizers)):
        needed = [len(tokens) for tokens, _ in span]
        if found and any(need > free for need, free in zip(needed, room, strict=True)):
            yield _row(before, found)
            before, found, room = [tokens[-1:] for tokens, _ in found[-1]], [], list(lengths)
        if any(need > length for need, length in zip(needed, lengths, strict=True)):
            before = [tokens[-1:] for tokens, _ in span]
            continue
        found.append(span)
        room = [free - need for need, free in zip(needed, room, strict=True)]
    if found:
        yield _row(before, found)


def _answers(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    cut: bool,
) -> Iterator[Aligned]:
    """Each document a row of its own: its prompt is only read."""
    for document in part:
        read = [one.encode(document.prompt or "")[0] or [one.end] for one in tokenizers]
        found = list(_spans(document.text, tokenizers))
        counts = [sum(len(span[side][0]) for span in found) for side in range(2)]
        for tokens, count, length in zip(read, counts, lengths, strict=True):
            if len(tokens) > length or (len(tokens) + count > length + 1 and not cut):
                raise ValueError(too_long(document, len(tokens), count - 1, length))
        while any(
            len(read[side]) + sum(len(span[side][0]) for span in found) > lengths[side] + 1
            for side in range(2)
        ):
            found.pop()
        if found:
            yield _row(read, found)


def _row(read: Sequence[list[int]], found: list[Span]) -> Aligned:
    rows = []
    for side, before in enumerate(read):
        tokens, each = ([one for span in found for one in span[side][what]] for what in range(2))
        rows.append(Row([*before, *tokens], [0] * len(before) + each, len(before)))
    return Aligned((rows[0], rows[1]), found)


def _spans(text: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> Iterator[Span]:
    """The spans of a text, and its end."""
    said = [one.encode(text) for one in tokenizers]
    numbers = spans(said[0][1], said[1][1])
    parts = [
        [
            tuple(map(list, zip(*group, strict=True)))[1:]
            for _, group in groupby(zip(number, *side, strict=True), lambda entry: entry[0])
        ]
        for number, side in zip(numbers, said, strict=True)
    ]
    for mine, theirs in zip(*parts, strict=True):
        yield (mine[0], mine[1]), (theirs[0], theirs[1])
    yield ([tokenizers[0].end], [0]), ([tokenizers[1].end], [0])
