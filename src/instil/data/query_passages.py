"""Queries with tokenized passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.label_kinds import GradedData
from instil.data.tokenizers import Tokenizer
from instil.functional.ranking import PADDED_SCORE


def first_token(tokenizer: Tokenizer) -> int | None:
    """Return the first token of a text; None if there is none.

    Args:
        tokenizer: tokenizer of the data.
    """
    # Tokenizers of RoBERTa have a first token of texts, but no [CLS].
    return tokenizer.bos if tokenizer.start is None else tokenizer.start


def framed(tokenizer: Tokenizer, text: str, length: int | None = None) -> list[int]:
    """Return the tokens of a text between start and end token, cut to ``length``.

    Args:
        tokenizer: tokenizer of the data.
        text: the text.
        length: largest number of tokens, with start and end; None for all.
    """
    first = first_token(tokenizer)
    start = [] if first is None else [first]
    tokens = tokenizer.encode(text)[0]
    if length is not None:
        tokens = tokens[: length - 1 - len(start)]
    return [*start, *tokens, tokenizer.end]


def separators(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens between two texts: those of the tokenizer's post-processor, or its end.

    Args:
        tokenizer: tokenizer of the data.
    """
    inner: Any = getattr(tokenizer, "inner", None)
    joined = [] if inner is None else inner.encode("", "", add_special_tokens=True).ids
    ends = [token for token in joined if token == tokenizer.end]
    return ends[:-1] or [tokenizer.end]


def cut_notes(
    tokenizer: Tokenizer, texts: Iterable[str], length: int, split: str
) -> tuple[str, ...]:
    """Return a sentence about the texts of a split that are longer than a row, if there are any.

    Args:
        tokenizer: tokenizer of the data.
        texts: texts of the split.
        length: length of a row in tokens.
        split: name of the split.
    """
    num_texts = num_cut = 0
    for text in texts:
        num_texts += 1
        # A token has at least one byte, so that short texts need no second encoding.
        if len(text.encode()) + 2 > length:
            num_cut += len(framed(tokenizer, text)) > length
    return cut_note(num_cut, num_texts, split, length)


def cut_note(num_cut: int, num_texts: int, split: str, length: int) -> tuple[str, ...]:
    """Return a sentence about texts that are cut, if there are any.

    Args:
        num_cut: number of these texts.
        num_texts: number of texts of the split.
        split: name of the split.
        length: length of a row in tokens.
    """
    if not num_cut:
        return ()
    return (f"{num_cut} of {num_texts} {split} texts are longer than {length} tokens and are cut",)


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


@dataclass(frozen=True)
class TextEncoder:
    """Function from texts to ``input_ids`` and ``attention_mask`` (N, ``length``).

    Args:
        tokenizer: tokenizer of the data.
        length: length of a text in tokens; longer texts are cut.
    """

    tokenizer: Tokenizer
    length: int

    def __call__(self, texts: Sequence[str]) -> Batch:
        ids, mask = token_rows(self.tokenizer, texts, self.length)
        return {"input_ids": ids, "attention_mask": mask}


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
    if first_token(tokenizer) is not None:
        # A second text has no first token of its own; RoBERTa has a second separator there.
        start = [*separators(tokenizer)[1:], -1][0]
        tensors["passage_start"] = torch.full((len(queries),), start)
    if scores is not None:
        tensors["teacher_scores"] = _table(scores, num_passages, PADDED_SCORE)
    # A text network of this package gets one output, which a cross-encoder reads.
    facts: dict[str, Any] = {"vocabulary": tokenizer.size, "length": length, "classes": 1}
    data = GradedData(tensors, _table(grades, num_passages, float(UNLABELLED)), facts)
    data.encode_texts = TextEncoder(tokenizer, length)
    return data


def _table(rows: Sequence[Sequence[float]], width: int, filler: float) -> Tensor:
    table = torch.full((len(rows), width), filler)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor([float(value) for value in row])
    return table
