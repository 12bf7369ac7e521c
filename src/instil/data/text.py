"""Texts as rows of tokens, each with the token that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import UNLABELLED, closest
from instil.data.documents import Document, documents
from instil.data.samples import Facts, TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer, tokenizer

Context = Literal["beside", "read"]
Count = Annotated[int, Ge(1)]


class Row(NamedTuple):
    """Tokens, the bytes of each, and how many of them are only read (a prompt); a context that is not among them, and the number of the domain."""

    tokens: list[int]
    said: list[int]
    read: int
    context: Sequence[int] = ()
    domain: int = 0


class TokenRows(TensorData):
    """Rows (N, T) of ``input_ids`` whose ``label`` at each position is the token that follows, -100 where none is learned there.

    ``attention_mask`` is 0 for padding, ``valid`` True where a token is learned, ``bytes`` the UTF-8 bytes of the label's token. ``tokens``: of a
    smaller vocabulary the numbers in the tokenizer's; else empty. Where rows have a context there are ``context_ids`` and ``context_mask`` (N, C),
    where they are of several domains, ``domain`` (N,).
    """

    noun = "row"

    def __init__(
        self,
        rows: Sequence[Row],
        length: int,
        vocabulary: int,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
    ):
        self.vocabulary, self.length, self.tokenizer, self.tokens = (
            vocabulary,
            length,
            tokenizer,
            tuple(tokens),
        )
        self.end = list(tokens).index(tokenizer.end) if tokens else tokenizer.end
        ids = torch.full((len(rows), length + 1), self.end)
        said, there = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        learned = torch.zeros_like(there)
        for number, (row, each, read, *_) in enumerate(rows):
            ids[number, : len(row)], said[number, : len(row)] = (
                torch.tensor(row),
                torch.tensor(each),
            )
            there[number, : len(row)], learned[number, read : len(row)] = True, True
        valid = learned[:, 1:] & there[:, :-1]
        tensors = {
            "input_ids": ids[:, :-1],
            "attention_mask": there[:, :-1].long(),
            "valid": valid,
            "bytes": said[:, 1:],
            **self._beside(rows),
        }
        label = ids[:, 1:].masked_fill(~valid, UNLABELLED)
        super().__init__(
            {key: value.contiguous() for key, value in tensors.items()}, label, ("token",)
        )

    def _beside(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        self.context, found = (
            max((len(row.context) for row in rows), default=0),
            dict[str, Tensor](),
        )
        if self.context:
            there = (
                torch.arange(self.context)[None]
                < torch.tensor([len(row.context) for row in rows])[:, None]
            )
            ids = torch.tensor(
                [[*row.context, *[self.end] * (self.context - len(row.context))] for row in rows]
            )
            found = {"context_ids": ids, "context_mask": there.long()}
        return found | (
            {"domain": torch.tensor([row.domain for row in rows])}
            if any(row.domain for row in rows)
            else {}
        )

    @property
    def facts(self) -> Facts:
        """``length`` is that of a row with its context."""
        more = {"tokens": self.tokens} if self.tokens else {}
        return {
            "vocabulary": self.vocabulary,
            "length": self.length + self.context,
            "end": self.end,
            **more,
        }

    @property
    def kind(self) -> str:
        """``token``."""
        return "token"

    def text_of(self, ids: Sequence[int]) -> str:
        """What these token numbers say."""
        return self.tokenizer.decode(
            [self.tokens[number] for number in ids] if self.tokens else list(ids)
        )

    def _checked(self, label: Tensor) -> Tensor:
        if label.ndim != 2 or label.is_floating_point() or label.max() >= self.vocabulary:
            raise ValueError(
                f"labels of texts are token numbers (N, T) below {self.vocabulary}, not {label.dtype} {tuple(label.shape)}"
            )
        return label.to(torch.int64)


def text(
    path: str = "stdlib",
    tokenizer: str = "bytes",
    length: int = 128,
    rows: Count | None = None,
    held_out: Count | None = None,
    prune: bool = False,
    cut: bool = False,
    context: Context = "beside",
    domain: str | None = None,
    teacher_tokenizer: str | None = None,
    teacher_length: int | None = None,
    base: Path = Path(),
) -> Splits:
    """Rows of ``length`` tokens of documents (see ``documents``), which are split by document.

    Texts follow one another, each closed by the end token, and are cut into rows without a gap: every token is learned once. Where documents have a
    prompt, each is a row of its own, padded, and only what answers the prompt is learned, with its end unless it was cut. ``rows`` and ``held_out``
    are at most so many rows to train and to judge on; those of texts are from all over them. ``prune``: the vocabulary is only that of the tokens in
    these rows, numbered anew, with what they are put together from. ``cut``: what is longer than a row loses its end. ``context``: that of a prompt
    is handed out beside the row, or ``read`` before the prompt. Texts of several domains are not mixed in a row, and a batch has the number of each
    row's ``domain``, in the order of their names; with ``domain`` only the rows of this one are kept. ``teacher_tokenizer``: the same texts come in
    the tokens of a teacher too, in rows of at most ``teacher_length`` (null: ``length``), cut where both tokenizers have an end (see
    ``AlignedRows``), without context and domain.

    Raises ValueError for texts shorter than one row, without ``cut`` for a prompt and answer that are longer, and for a domain without rows.
    """
    if length < 2:
        raise ValueError(f"a row needs at least 2 tokens, not {length}")
    parts = documents(path, base)
    made = _tokenizer(tokenizer, (document.text for document in parts[0]), base)
    limits = (rows, held_out, held_out)
    if teacher_tokenizer is not None:
        from instil.data.aligned import aligned

        theirs = _tokenizer(teacher_tokenizer, (document.text for document in parts[0]), base)
        return aligned(
            parts, (made, theirs), (length, teacher_length or length), limits, prune, cut
        )
    return of_documents(parts, made, length, limits, prune, cut, context, domain)


def of_documents(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    cut: bool = False,
    context: Context = "beside",
    domain: str | None = None,
) -> Splits:
    """Rows of train, validation and test documents, at most so many of each; the other arguments are those of ``text``."""
    names = sorted({document.domain for part in parts for document in part})
    read = (
        [[_read_context(document) for document in part] for part in parts]
        if context == "read"
        else parts
    )
    found = [
        _rows(part, tokenizer, length, limit, cut, names)
        for part, limit in zip(read, limits, strict=True)
    ]
    taken, tokens = pruned(found, tokenizer, prune)
    taken = taken if domain is None else [_of_domain(part, domain, names) for part in taken]
    train, validation, test = (
        TokenRows(part, length, len(tokens) or tokenizer.size, tokenizer, tokens) for part in taken
    )
    return Splits(train, validation, test, train.classes, train.kind)


def pruned(
    parts: Sequence[list[Row]], tokenizer: Tokenizer, prune: bool
) -> tuple[Sequence[list[Row]], list[int]]:
    """Rows in the numbers of those tokens alone that are in them, and these tokens; as they are, and none, unless this is asked for."""
    if not prune:
        return parts, []
    tokens = sorted(
        tokenizer.closed(
            {token for part in parts for row in part for token in (*row.tokens, *row.context)}
        )
    )
    place = {token: number for number, token in enumerate(tokens)}
    known = [
        [
            row._replace(
                tokens=[place[one] for one in row.tokens],
                context=[place[one] for one in row.context],
            )
            for row in part
        ]
        for part in parts
    ]
    return known, tokens


def _read_context(document: Document) -> Document:
    return (
        document
        if document.prompt is None
        else replace(document, prompt=document.context + document.prompt, context="")
    )


def _of_domain(rows: Sequence[Row], domain: str, names: Sequence[str]) -> list[Row]:
    if domain not in names:
        there = closest(domain, filter(None, names)) if any(names) else "they have no domains"
        raise ValueError(f"domain: there is no '{domain}' among the texts; {there}")
    kept = [row._replace(domain=0) for row in rows if names[row.domain] == domain]
    if not kept:
        raise ValueError(f"domain: one part of the texts has no row of '{domain}'")
    return kept


def _tokenizer(name: str, texts: Iterator[str], base: Path) -> Tokenizer:
    return tokenizer(name, texts, base)  # the option of ``text`` bears the function's name


def _rows(
    part: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    limit: int | None,
    cut: bool,
    names: Sequence[str],
) -> list[Row]:
    """Rows of ``length`` + 1 tokens: the last is only a label. Of ``limit`` rows of texts, each is from another place, of answers the first ones."""
    answers = any(document.prompt is not None for document in part)
    found = (
        list(islice(_answers(part, tokenizer, length, cut, names), limit))
        if answers
        else _packed(part, tokenizer, length, names)
    )
    if not answers and limit is not None and limit < len(found):
        found = [found[number * len(found) // limit] for number in range(limit)]
    if not found:
        raise ValueError(
            f"the texts of one part ({', '.join(document.name for document in part[:3])} ...) are shorter than a row of {length} tokens"
        )
    return found


def _packed(
    part: Sequence[Document], tokenizer: Tokenizer, length: int, names: Sequence[str]
) -> list[Row]:
    rows: list[Row] = []
    for number, name in enumerate(names):
        ids: list[int] = []
        said: list[int] = []
        for document in (document for document in part if document.domain == name):
            tokens, each = tokenizer.encode(document.text)
            ids += [*tokens, tokenizer.end]
            said += [*each, 0]
        starts = range(0, len(ids) - length, length)
        rows += [
            Row(ids[start : start + length + 1], said[start : start + length + 1], 0, (), number)
            for start in starts
        ]
    return rows


def _answers(
    part: Sequence[Document], tokenizer: Tokenizer, length: int, cut: bool, names: Sequence[str]
) -> Iterator[Row]:
    for document in part:
        read, _ = tokenizer.encode(document.prompt or "")
        tokens, each = tokenizer.encode(document.text)
        end = [] if document.cut else [tokenizer.end]
        ids, said = [*read, *tokens, *end], [*[0] * len(read), *each, *[0] * len(end)]
        if len(read) > length or (len(ids) > length + 1 and not cut):
            raise ValueError(too_long(document, len(read), len(tokens), length))
        context, _ = tokenizer.encode(document.context)
        yield Row(
            ids[: length + 1], said[: length + 1], len(read), context, names.index(document.domain)
        )


def too_long(document: Document, prompt: int, answer: int, length: int) -> str:
    """What is wrong with a prompt and an answer of so many tokens."""
    what = f"{document.name} has {prompt} tokens of prompt and {answer} of answer"
    return f"{what}, more than a row of {length}; make the rows longer" + (
        " or cut the answer (cut=true)" * (prompt <= length)
    )
