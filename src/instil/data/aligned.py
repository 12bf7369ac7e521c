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
from instil.data.fitting import REFUSED, Fitted, TooLong
from instil.data.splits import Splits
from instil.data.token_rows import Row, TokenRows, pruned
from instil.data.tokenizers import Tokenizer

Side = tuple[list[int], list[int]]
"""Tokens, and the bytes of each."""
Span = tuple[Side, Side]
"""What the student's and the teacher's tokenizer make of the same bytes."""


class Aligned(NamedTuple):
    """One row of either side, and the spans of its tokens; ``unlearned`` are the indices of spans that are only read."""

    rows: tuple[Row, Row]
    spans: list[Span]
    unlearned: frozenset[int] = frozenset()


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
                numbers = [
                    -1 if index in row.unlearned else index
                    for index, span in enumerate(row.spans)
                    for _ in span[side][0]
                ]
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
    too_long: TooLong = REFUSED,
) -> Splits:
    """Documents in rows of at most so many tokens of student and teacher, cut only where both have an end.

    Every span is learned once, but for those that are longer than a row. The other arguments are those of ``text``.
    """
    taken, notes = [], []
    for part, limit in zip(parts, limits, strict=True):
        fitted = (Fitted(too_long), Fitted(too_long))
        taken.append(list(islice(_rows(part, tokenizers, lengths, fitted), limit)))
        notes.append(fitted[0].note() or fitted[1].note())
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
    names = ("training", "validation", "test")
    for samples, name, note in zip((train, validation, test), names, notes, strict=True):
        samples.notes = (f"{name} texts: {note}",) if note else ()
    return Splits(train, validation, test, train.classes, train.kind)


def _rows(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    fitted: tuple[Fitted, Fitted],
) -> Iterator[Aligned]:
    if any(document.prompt is not None for document in part):
        yield from _answers(part, tokenizers, lengths, fitted)
    else:
        yield from _packed(part, tokenizers, lengths)


def _packed(
    part: Sequence[Document], tokenizers: tuple[Tokenizer, Tokenizer], lengths: tuple[int, int]
) -> Iterator[Aligned]:
    """Texts one after another; a row begins with the last token of what came before it."""
    row: list[Span] = []
    before, room = [[one.end] for one in tokenizers], list(lengths)
    begin = _begin(tokenizers)
    for document in part:
        for span in (*begin, *_spans(document.text, tokenizers)):
            needed = [len(tokens) for tokens, _ in span]
            if row and any(need > free for need, free in zip(needed, room, strict=True)):
                yield _row(before, row, begin)
                before, row, room = _last_tokens(before, row), [], list(lengths)
            if any(need > length for need, length in zip(needed, lengths, strict=True)):
                before = _last_tokens(before, [span])
                continue
            row.append(span)
            room = [free - need for need, free in zip(needed, room, strict=True)]
    if row:
        yield _row(before, row, begin)


def _begin(tokenizers: tuple[Tokenizer, Tokenizer]) -> list[Span]:
    """The tokens before each text as a span that is only read; nothing where neither side has one."""
    sides: list[Side] = [([], []) if one.bos is None else ([one.bos], [0]) for one in tokenizers]
    return [(sides[0], sides[1])] if any(tokens for tokens, _ in sides) else []


def _last_tokens(before: Sequence[list[int]], row: Sequence[Span]) -> list[list[int]]:
    """The last token of either side; one side of the token before a text may be empty."""
    last = []
    for side, tokens_before in enumerate(before):
        tokens = [token for span in row for token in span[side][0]]
        last.append(tokens[-1:] or list(tokens_before))
    return last


def _answers(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    fitted: tuple[Fitted, Fitted],
) -> Iterator[Aligned]:
    """Each document a row of its own: its prompt is only read."""
    for document in part:
        spans_of_answer = list(_spans(document.text, tokenizers))
        prompts = []
        for side, (tokenizer, length) in enumerate(zip(tokenizers, lengths, strict=True)):
            begin = [] if tokenizer.bos is None else [tokenizer.bos]
            tokens = [*begin, *tokenizer.encode(document.prompt or "")[0]] or [tokenizer.end]
            answer = sum(len(span[side][0]) for span in spans_of_answer) - 1
            prompts.append(fitted[side].prompt(document, tokens, answer, length, len(begin)))
        read = [prompt for prompt in prompts if prompt is not None]
        if len(read) < len(prompts):
            continue
        while any(
            len(read[side]) + sum(len(span[side][0]) for span in spans_of_answer) > length + 1
            for side, length in enumerate(lengths)
        ):
            spans_of_answer.pop()
        if spans_of_answer:
            yield _row(read, spans_of_answer)


def _row(read: Sequence[list[int]], row: Sequence[Span], begin: Sequence[Span] = ()) -> Aligned:
    """One row of either side; spans that are one of ``begin`` are only read."""
    unlearned = frozenset(index for index, span in enumerate(row) if span in begin)
    rows = []
    for side, before in enumerate(read):
        tokens, num_bytes = list(before), [0] * len(before)
        places: list[int] = []
        for index, span in enumerate(row):
            if index in unlearned:
                places += range(len(tokens), len(tokens) + len(span[side][0]))
            tokens += span[side][0]
            num_bytes += span[side][1]
        rows.append(Row(tokens, num_bytes, len(before), unlearned=places))
    return Aligned((rows[0], rows[1]), list(row), unlearned)


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
