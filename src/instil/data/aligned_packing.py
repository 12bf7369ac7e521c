"""Division of documents into rows that end at a boundary of two tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from instil.data.alignment import spans
from instil.data.documents import Document
from instil.data.fitting import Fitted
from instil.data.token_rows import Row
from instil.data.tokenizers import Tokenizer

Side = tuple[list[int], list[int]]
"""Token ids and the number of bytes of each."""
Span = tuple[Side, Side]
"""The same bytes of a text in the tokens of student and teacher."""


class Aligned(NamedTuple):
    """One row of each side and the spans of its tokens.

    Attributes:
        rows: row of the student and row of the teacher.
        spans: spans of the row, in order.
        unlearned: indices of spans that are input only.
    """

    rows: tuple[Row, Row]
    spans: list[Span]
    unlearned: frozenset[int] = frozenset()


def aligned_rows(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    fitted: tuple[Fitted, Fitted],
) -> Iterator[Aligned]:
    """Yield the rows of one part of the documents.

    Args:
        part: documents.
        tokenizers: tokenizers of student and teacher.
        lengths: length of a row in tokens of student and teacher.
        fitted: handling of prompts and answers that do not fit, of both sides.
    """
    if any(document.prompt is not None for document in part):
        yield from _answers(part, tokenizers, lengths, fitted)
    else:
        yield from _packed(part, tokenizers, lengths)


def _packed(
    part: Sequence[Document], tokenizers: tuple[Tokenizer, Tokenizer], lengths: tuple[int, int]
) -> Iterator[Aligned]:
    """Rows of consecutive texts; a row begins with the last token before it."""
    row: list[Span] = []
    before = [[tokenizer.end] for tokenizer in tokenizers]
    room = list(lengths)
    begin = _begin(tokenizers)
    for document in part:
        for span in (*begin, *_spans(document.text, tokenizers)):
            needed = [len(tokens) for tokens, _ in span]
            if row and any(need > free for need, free in zip(needed, room, strict=True)):
                yield _row(before, row, begin)
                before = _last_tokens(before, row)
                row = []
                room = list(lengths)
            if any(need > length for need, length in zip(needed, lengths, strict=True)):
                before = _last_tokens(before, [span])
                continue
            row.append(span)
            room = [free - need for need, free in zip(needed, room, strict=True)]
    if row:
        yield _row(before, row, begin)


def _begin(tokenizers: tuple[Tokenizer, Tokenizer]) -> list[Span]:
    """The tokens before each text as a span that is input only; empty if neither side has one."""
    sides: list[Side] = [([], []) if one.bos is None else ([one.bos], [0]) for one in tokenizers]
    return [(sides[0], sides[1])] if any(tokens for tokens, _ in sides) else []


def _last_tokens(before: Sequence[list[int]], row: Sequence[Span]) -> list[list[int]]:
    """The last token of each side; one side of the token before a text may be empty."""
    last = []
    for side, tokens_before in enumerate(before):
        tokens: list[int] = []
        for span in row:
            tokens += span[side][0]
        last.append(tokens[-1:] or list(tokens_before))
    return last


def _answers(
    part: Sequence[Document],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    fitted: tuple[Fitted, Fitted],
) -> Iterator[Aligned]:
    """One row per document, whose prompt is input only."""
    for document in part:
        answer_spans = list(_spans(document.text, tokenizers))
        prompts = []
        for side, (tokenizer, length) in enumerate(zip(tokenizers, lengths, strict=True)):
            begin = [] if tokenizer.bos is None else [tokenizer.bos]
            tokens = [*begin, *tokenizer.encode(document.prompt or "")[0]] or [tokenizer.end]
            answer = _num_tokens(answer_spans, side) - 1
            prompts.append(fitted[side].prompt(document, tokens, answer, length, len(begin)))
        read = [prompt for prompt in prompts if prompt is not None]
        if len(read) < len(prompts):
            continue
        while any(
            len(read[side]) + _num_tokens(answer_spans, side) > length + 1
            for side, length in enumerate(lengths)
        ):
            answer_spans.pop()
        if answer_spans:
            yield _row(read, answer_spans)


def _num_tokens(row: Sequence[Span], side: int) -> int:
    return sum(len(span[side][0]) for span in row)


def _row(read: Sequence[list[int]], row: Sequence[Span], begin: Sequence[Span] = ()) -> Aligned:
    """One row of each side; spans in ``begin`` are input only."""
    # By identity: the token before a text may be the end token, as in GPT-2, which is learned.
    unlearned = frozenset(i for i, span in enumerate(row) if any(span is one for one in begin))
    rows = []
    for side, before in enumerate(read):
        tokens = list(before)
        num_bytes = [0] * len(before)
        unlearned_positions: list[int] = []
        for index, span in enumerate(row):
            if index in unlearned:
                unlearned_positions += range(len(tokens), len(tokens) + len(span[side][0]))
            tokens += span[side][0]
            num_bytes += span[side][1]
        rows.append(Row(tokens, num_bytes, len(before), unlearned=unlearned_positions))
    return Aligned((rows[0], rows[1]), list(row), unlearned)


def _spans(text: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> Iterator[Span]:
    """The spans of a text, followed by that of the end tokens."""
    encoded = [tokenizer.encode(text) for tokenizer in tokenizers]
    span_indices = spans(encoded[0][1], encoded[1][1])
    sides = [_grouped(*pair) for pair in zip(span_indices, encoded, strict=True)]
    yield from zip(*sides, strict=True)
    yield ([tokenizers[0].end], [0]), ([tokenizers[1].end], [0])


def _grouped(span_indices: Sequence[int], encoded: Side) -> list[Side]:
    """Tokens and bytes of one side by span."""
    groups: list[Side] = []
    last_index = None
    for index, token, num_bytes in zip(span_indices, *encoded, strict=True):
        if index != last_index:
            groups.append(([], []))
            last_index = index
        groups[-1][0].append(token)
        groups[-1][1].append(num_bytes)
    return groups
