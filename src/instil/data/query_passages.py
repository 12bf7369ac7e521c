"""Queries with tokenized passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.label_kinds import GradedData
from instil.data.tokenizers import Tokenizer
from instil.functional.ranking import PADDED_SCORE


def framed(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    """Return the tokens of a text between start and end token, cut to ``length``.

    Args:
        tokenizer: tokenizer of the data.
        text: the text.
        length: largest number of tokens, with start and end.
    """
    start = [] if tokenizer.start is None else [tokenizer.start]
    return [*start, *tokenizer.encode(text)[0][: length - 1 - len(start)], tokenizer.end]


def token_rows(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask (N, ``length``) of texts; an empty text has no token.

    Args:
        tokenizer: tokenizer of the data.
        texts: N texts.
        length: length of a row.
    """
    ids = torch.full((len(texts), length), tokenizer.end)
    mask = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        if text:
            tokens = framed(tokenizer, text, length)
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
    return ids, mask


def query_data(
    queries: Sequence[str],
    passages: Sequence[Sequence[str]],
    grades: Sequence[Sequence[float]],
    tokenizer: Tokenizer,
    length: int,
    scores: Sequence[Sequence[float]] | None = None,
) -> GradedData:
    """Return queries with their passages and grades, padded to the largest number of passages.

    Args:
        queries: N texts.
        passages: texts of the passages of each query.
        grades: grade of each passage.
        tokenizer: tokenizer of the data.
        length: length of a text in tokens.
        scores: score of each passage by a teacher; None for none.
    """
    num_passages = max((len(row) for row in passages), default=0)
    ids, mask = token_rows(tokenizer, queries, length)
    flat: list[str] = []
    for row in passages:
        flat += [*row, *[""] * (num_passages - len(row))]
    passage_ids, passage_mask = token_rows(tokenizer, flat, length)
    shape = (len(queries), num_passages, length)
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "passage_input_ids": passage_ids.view(shape),
        "passage_attention_mask": passage_mask.view(shape),
    }
    if scores is not None:
        tensors["teacher_scores"] = _table(scores, num_passages, PADDED_SCORE)
    # A text network of this package gets one output, which a cross-encoder reads.
    facts: dict[str, Any] = {"vocabulary": tokenizer.size, "length": length, "classes": 1}
    return GradedData(tensors, _table(grades, num_passages, float(UNLABELLED)), facts)


def _table(rows: Sequence[Sequence[float]], width: int, filler: float) -> Tensor:
    table = torch.full((len(rows), width), filler)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor([float(value) for value in row])
    return table
