"""Texts as rows of tokens, each with the token that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.documents import Document, documents
from instil.data.samples import Facts, TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer, tokenizer

Row = tuple[list[int], list[int], int]
"""Tokens, the bytes of each, and how many of them are only read (a prompt)."""


class TokenRows(TensorData):
    """Rows (N, T) of ``input_ids`` whose ``label`` at each position is the token that follows, -100 where none is learned there.

    ``attention_mask`` is 0 for padding, ``valid`` True where a token is learned, ``bytes`` the UTF-8 bytes of the label's token. ``tokens``: of a
    smaller vocabulary the numbers in the tokenizer's; else empty.
    """

    noun = "row"

    def __init__(self, rows: Sequence[Row], length: int, vocabulary: int, tokenizer: Tokenizer, tokens: Sequence[int] = ()):
        self.vocabulary, self.length, self.tokenizer, self.tokens = vocabulary, length, tokenizer, tuple(tokens)
        self.end = list(tokens).index(tokenizer.end) if tokens else tokenizer.end
        ids = torch.full((len(rows), length + 1), self.end)
        said, there = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        learned = torch.zeros_like(there)
        for number, (row, each, read) in enumerate(rows):
            ids[number, : len(row)], said[number, : len(row)] = torch.tensor(row), torch.tensor(each)
            there[number, : len(row)], learned[number, read : len(row)] = True, True
        valid = learned[:, 1:] & there[:, :-1]
        tensors = {"input_ids": ids[:, :-1], "attention_mask": there[:, :-1].long(), "valid": valid, "bytes": said[:, 1:]}
        label = ids[:, 1:].masked_fill(~valid, UNLABELLED)
        super().__init__({key: value.contiguous() for key, value in tensors.items()}, label, ("token",))

    @property
    def facts(self) -> Facts:
        return {"vocabulary": self.vocabulary, "length": self.length, "end": self.end, **({"tokens": self.tokens} if self.tokens else {})}

    @property
    def kind(self) -> str:
        """``token``."""
        return "token"

    def text_of(self, ids: Sequence[int]) -> str:
        """What these token numbers say."""
        return self.tokenizer.decode([self.tokens[number] for number in ids] if self.tokens else list(ids))

    def _checked(self, label: Tensor) -> Tensor:
        if label.ndim != 2 or label.is_floating_point() or label.max() >= self.vocabulary:
            raise ValueError(f"labels of texts are token numbers (N, T) below {self.vocabulary}, not {label.dtype} {tuple(label.shape)}")
        return label.to(torch.int64)


def text(
    path: str = "stdlib",
    tokenizer: str = "bytes",
    length: int = 128,
    rows: int | None = None,
    held_out: int | None = None,
    prune: bool = False,
    cut: bool = False,
    teacher_tokenizer: str | None = None,
    teacher_length: int | None = None,
    base: Path = Path(),
) -> Splits:
    """Rows of ``length`` tokens of documents (see ``documents``), which are split by document.

    Texts follow one another, each closed by the end token, and are cut into rows without a gap: every token is learned once. Where documents have a
    prompt, each is a row of its own, padded, and only what answers the prompt is learned, with its end unless it was cut. ``rows`` and ``held_out``
    are at most so many rows to train and to judge on; those of texts are from all over them. ``prune``: the vocabulary is only that of the tokens in
    these rows, numbered anew, with what they are put together from. ``cut``: what is longer than a row loses its end. ``teacher_tokenizer``: the
    same texts come in the tokens of a teacher too, in rows of at most ``teacher_length`` (null: ``length``), cut where both tokenizers have an end
    (see ``AlignedRows``).

    Raises ValueError for texts shorter than one row, and without ``cut`` for a prompt and answer that are longer.
    """
    if length < 2:
        raise ValueError(f"a row needs at least 2 tokens, not {length}")
    parts = documents(path, base)
    made = _tokenizer(tokenizer, (document.text for document in parts[0]), base)
    limits = (rows, held_out, held_out)
    if teacher_tokenizer is not None:
        from instil.data.aligned import aligned

        theirs = _tokenizer(teacher_tokenizer, (document.text for document in parts[0]), base)
        return aligned(parts, (made, theirs), (length, teacher_length or length), limits, prune, cut)
    return of_documents(parts, made, length, limits, prune, cut)


def of_documents(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    cut: bool = False,
) -> Splits:
    """Rows of train, validation and test documents, at most so many of each; the other arguments are those of ``text``."""
    taken, tokens = pruned([_rows(part, tokenizer, length, limit, cut) for part, limit in zip(parts, limits, strict=True)], tokenizer, prune)
    train, validation, test = (TokenRows(part, length, len(tokens) or tokenizer.size, tokenizer, tokens) for part in taken)
    return Splits(train, validation, test, train.classes, train.kind)


def pruned(parts: Sequence[list[Row]], tokenizer: Tokenizer, prune: bool) -> tuple[Sequence[list[Row]], list[int]]:
    """Rows in the numbers of those tokens alone that are in them, and these tokens; as they are, and none, unless this is asked for."""
    if not prune:
        return parts, []
    tokens = sorted(tokenizer.closed({token for part in parts for row, _, _ in part for token in row}))
    place = {token: number for number, token in enumerate(tokens)}
    return [[([place[token] for token in row], each, read) for row, each, read in part] for part in parts], tokens


def _tokenizer(name: str, texts: Iterator[str], base: Path) -> Tokenizer:
    return tokenizer(name, texts, base)  # the option of ``text`` bears the function's name


def _rows(part: Sequence[Document], tokenizer: Tokenizer, length: int, limit: int | None, cut: bool) -> list[Row]:
    """Rows of ``length`` + 1 tokens: the last is only a label. Of ``limit`` rows of texts, each is from another place, of answers the first ones."""
    answers = any(document.prompt is not None for document in part)
    found = list(islice(_answers(part, tokenizer, length, cut), limit)) if answers else _packed(part, tokenizer, length)
    if not answers and limit is not None and limit < len(found):
        found = [found[number * len(found) // limit] for number in range(limit)]
    if not found:
        raise ValueError(f"the texts of one part ({', '.join(document.name for document in part[:3])} ...) are shorter than a row of {length} tokens")
    return found


def _packed(part: Sequence[Document], tokenizer: Tokenizer, length: int) -> list[Row]:
    ids: list[int] = []
    said: list[int] = []
    for document in part:
        tokens, each = tokenizer.encode(document.text)
        ids += [*tokens, tokenizer.end]
        said += [*each, 0]
    return [(ids[start : start + length + 1], said[start : start + length + 1], 0) for start in range(0, len(ids) - length, length)]


def _answers(part: Sequence[Document], tokenizer: Tokenizer, length: int, cut: bool) -> Iterator[Row]:
    for document in part:
        read, _ = tokenizer.encode(document.prompt or "")
        tokens, each = tokenizer.encode(document.text)
        end = [] if document.cut else [tokenizer.end]
        ids, said = [*read, *tokens, *end], [*[0] * len(read), *each, *[0] * len(end)]
        if len(read) > length or (len(ids) > length + 1 and not cut):
            raise ValueError(too_long(document, len(read), len(tokens), length))
        yield ids[: length + 1], said[: length + 1], len(read)


def too_long(document: Document, prompt: int, answer: int, length: int) -> str:
    """What is wrong with a prompt and an answer of so many tokens."""
    what = f"{document.name} has {prompt} tokens of prompt and {answer} of answer"
    return f"{what}, more than a row of {length}; make the rows longer" + (" or cut the answer (cut=true)" * (prompt <= length))
