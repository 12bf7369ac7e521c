"""Token rows of one text for two tokenizers, with the spans that both sides share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.aligned_packing import Aligned, aligned_rows
from instil.data.alignment import same_tokens
from instil.data.documents import Document
from instil.data.fitting import REFUSED, Fitted, TooLong
from instil.data.splits import Splits
from instil.data.token_packing import pruned
from instil.data.token_rows import TokenRows
from instil.data.tokenizers import Tokenizer

PREFIX = "teacher_"
"""Prefix of the batch keys of the teacher's rows."""


class AlignedRows(TokenRows):
    """Rows of the student, with those of the teacher under keys that begin with ``teacher_``.

    ``span`` and ``teacher_span`` (N, T) are the span indices of the labels within a row, and -1 for
    positions without a target. ``same_tokens`` (N, P, 2) are the ids (teacher, student) of tokens
    with the same text, equal for all rows.

    Args:
        rows: aligned rows.
        student_rows: the rows in the tokens of the student.
        teacher_rows: the rows in the tokens of the teacher.
        same: ids (teacher, student) of tokens with the same text.
    """

    def __init__(
        self,
        rows: Sequence[Aligned],
        student_rows: TokenRows,
        teacher_rows: TokenRows,
        same: Sequence[tuple[int, int]],
    ):
        # This object takes over the attributes of the student's rows, which are complete.
        vars(self).update(vars(student_rows))
        self.teacher_rows = teacher_rows
        self.same = torch.tensor(same, dtype=torch.int64).view(-1, 2)
        for side, part in enumerate((student_rows, teacher_rows)):
            part.tensors["span"] = torch.full(part.label.shape, -1)
            for row_index, row in enumerate(rows):
                span_indices = _span_indices(row, side)
                # The label at a position is the next token: the first target is one position ahead.
                start = row.rows[side].read - 1
                window = slice(start, start + len(span_indices))
                part.tensors["span"][row_index, window] = torch.tensor(span_indices)

    def inputs(self, rows: Tensor) -> Batch:
        teacher_batch = self.teacher_rows.inputs(rows) | {"label": self.teacher_rows.label[rows]}
        prefixed = {f"{PREFIX}{key}": value for key, value in teacher_batch.items()}
        same = self.same.expand(len(rows), *self.same.shape)
        return super().inputs(rows) | prefixed | {"same_tokens": same}

    def _take(self, rows: Tensor) -> None:
        self.tensors = TokenRows.inputs(self, rows)
        self.teacher_rows = self.teacher_rows.subset(rows)


def _span_indices(row: Aligned, side: int) -> list[int]:
    """Span index of each token of one side; -1 for tokens that are input only."""
    indices: list[int] = []
    for index, span in enumerate(row.spans):
        value = -1 if index in row.unlearned else index
        indices += [value] * len(span[side][0])
    return indices


def of_teacher(splits: Splits) -> Splits:
    """Return the same texts in the tokens of a teacher with a tokenizer of its own."""
    train, validation, test = (
        part.teacher_rows if isinstance(part, AlignedRows) else part
        for part in (splits.train, splits.validation, splits.test)
    )
    return Splits(train, validation, test, splits.classes, splits.kind)


def read_by_teacher(batch: Batch) -> Batch:
    """Return a batch as a teacher with a tokenizer of its own reads it.

    The teacher's entries replace those of the student. A batch without such entries is returned
    unchanged.
    """
    teacher_batch = {
        key.removeprefix(PREFIX): value for key, value in batch.items() if key.startswith(PREFIX)
    }
    if not teacher_batch:
        return batch
    shared = {
        key: value
        for key, value in batch.items()
        if not key.startswith(PREFIX) and key not in teacher_batch
    }
    return shared | teacher_batch


def aligned(
    parts: Sequence[Sequence[Document]],
    tokenizers: tuple[Tokenizer, Tokenizer],
    lengths: tuple[int, int],
    limits: Sequence[int | None],
    prune: bool = False,
    too_long: TooLong = REFUSED,
) -> Splits:
    """Divide documents into aligned rows, cut only where both tokenizers have a boundary.

    Every span is a target once, except spans that are longer than a row.

    Args:
        parts: train, validation and test documents.
        tokenizers: tokenizers of student and teacher.
        lengths: length of a row in tokens of student and teacher.
        limits: largest number of rows of each part; None for all.
        prune: whether to reduce both vocabularies to the tokens of the rows.
        too_long: handling of prompts and answers that do not fit into a row.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if a part has no span that fits into a row.
    """
    rows_of, notes = [], []
    for part, limit in zip(parts, limits, strict=True):
        fitted = (Fitted(too_long), Fitted(too_long))
        rows_of.append(list(islice(aligned_rows(part, tokenizers, lengths, fitted), limit)))
        notes.append(fitted[0].note() or fitted[1].note())
    if not all(rows_of):
        raise ValueError("the texts of one part have no span that is shorter than a row")
    sides, new_ids = [], []
    for side, tokenizer in enumerate(tokenizers):
        rows = [[row.rows[side] for row in part] for part in rows_of]
        rows_in_vocabulary, tokens = pruned(rows, tokenizer, prune)
        size = len(tokens) or tokenizer.size
        length = lengths[side]
        sides.append(
            [TokenRows(part, length, size, tokenizer, tokens) for part in rows_in_vocabulary]
        )
        new_ids.append({token: new for new, token in enumerate(tokens or range(tokenizer.size))})
    same = [
        (new_ids[1][teacher_id], new_ids[0][student_id])
        for teacher_id, student_id in same_tokens(*tokenizers)
        if teacher_id in new_ids[1] and student_id in new_ids[0]
    ]
    train, validation, test = (
        AlignedRows(rows, student_rows, teacher_rows, same)
        for rows, student_rows, teacher_rows in zip(rows_of, *sides, strict=True)
    )
    names = ("training", "validation", "test")
    for samples, name, note in zip((train, validation, test), names, notes, strict=True):
        samples.notes = (f"{name} texts: {note}",) if note else ()
    return Splits(train, validation, test, train.classes, train.kind)
