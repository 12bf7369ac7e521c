"""Texts as rows of tokens, each with the token that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import UNLABELLED, closest
from instil.data.documents import Document
from instil.data.fitting import REFUSED, Fitted, TooLong
from instil.data.samples import Facts, TensorData
from instil.data.splits import Splits
from instil.data.tokenizers import Tokenizer

Context = Literal["beside", "read"]
Count = Annotated[int, Ge(1)]


class Row(NamedTuple):
    """Tokens, the bytes of each, and how many of them are only read (a prompt); a context that is not among them, and the number of the domain.

    ``unlearned``: places of further tokens that are only read, such as the one that begins a text.
    """

    tokens: list[int]
    said: list[int]
    read: int
    context: Sequence[int] = ()
    domain: int = 0
    unlearned: Sequence[int] = ()


class TokenRows(TensorData):
    """Rows (N, T) of ``input_ids`` whose ``label`` at each position is the token that follows, -100 where none is learned there.

    ``attention_mask`` is 0 for padding, ``valid`` True where a token is learned, ``bytes`` the UTF-8 bytes of the label's token. ``tokens``: of a
    smaller vocabulary the numbers in the tokenizer's; else empty. Where rows have a context there are ``context_ids`` and ``context_mask`` (N, C),
    and ``num_bos`` (N,) tokens that begin the row and stay before its context; where they are of several domains, ``domain`` (N,).

    ``end`` is the token that is appended to texts, ``ends`` are all that end one, ``has_prompts`` says whether a row has a prompt, and ``notes``
    are sentences about what was left out.
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
        self.ends = tuple(
            list(tokens).index(end) if tokens else end
            for end in tokenizer.ends
            if not tokens or end in tokens
        )
        self.end = self.ends[0]
        self.has_prompts = any(row.read > 1 for row in rows)
        self.notes: tuple[str, ...] = ()
        ids = torch.full((len(rows), length + 1), self.end)
        said, there = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        learned = torch.zeros_like(there)
        for index, row in enumerate(rows):
            length_of_row = len(row.tokens)
            ids[index, :length_of_row] = torch.tensor(row.tokens)
            said[index, :length_of_row] = torch.tensor(row.said)
            there[index, :length_of_row] = True
            learned[index, row.read : length_of_row] = True
            learned[index, list(row.unlearned)] = False
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
            if any(row.unlearned for row in rows):
                found["num_bos"] = torch.tensor([len(row.unlearned) for row in rows])
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
            "end": self.end if len(self.ends) == 1 else list(self.ends),
            **more,
        }

    @property
    def about(self) -> tuple[str, ...]:
        """A sentence about the tokens that begin and end a text."""
        inner = getattr(self.tokenizer, "inner", None)
        if inner is None:
            return ()
        ends = ", ".join(inner.id_to_token(end) for end in self.tokenizer.ends)
        bos = self.tokenizer.bos
        begins = "nothing" if bos is None else inner.id_to_token(bos)
        return (f"Tokens that end a text (the first is appended): {ends}; before it: {begins}.",)

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


def of_documents(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    too_long: TooLong = REFUSED,
    context: Context = "beside",
    domain: str | None = None,
) -> Splits:
    """Rows of train, validation and test documents, at most ``limits`` of each; the other arguments are those of ``text``."""
    names = sorted({document.domain for part in parts for document in part})
    documents_of = (
        [[_read_context(document) for document in part] for part in parts]
        if context == "read"
        else parts
    )
    rows_of, notes = [], []
    for part, limit in zip(documents_of, limits, strict=True):
        rows, note = _rows(part, tokenizer, length, limit, too_long, names)
        rows_of.append(rows)
        notes.append(note)
    rows_in_vocabulary, tokens = pruned(rows_of, tokenizer, prune)
    if domain is not None:
        rows_in_vocabulary = [_of_domain(part, domain, names) for part in rows_in_vocabulary]
    size = len(tokens) or tokenizer.size
    train, validation, test = (
        TokenRows(part, length, size, tokenizer, tokens) for part in rows_in_vocabulary
    )
    for samples, name, note in zip(
        (train, validation, test), ("training", "validation", "test"), notes, strict=True
    ):
        samples.notes = (f"{name} texts: {note}",) if note else ()
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


def _rows(
    part: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    limit: int | None,
    too_long: TooLong,
    names: Sequence[str],
) -> tuple[list[Row], str]:
    """Rows of ``length`` + 1 tokens: the last is only a label; and what was left out, in words.

    Of ``limit`` rows of texts, each is from another place, of answers the first ones.
    """
    fitted = Fitted(too_long)
    answers = any(document.prompt is not None for document in part)
    if answers:
        rows = list(islice(_answers(part, tokenizer, length, fitted, names), limit))
    else:
        rows = _packed(part, tokenizer, length, names)
        if limit is not None and limit < len(rows):
            rows = [rows[index * len(rows) // limit] for index in range(limit)]
    if not rows:
        some = ", ".join(document.name for document in part[:3])
        what = "longer" if fitted.dropped else "shorter"
        raise ValueError(
            f"the texts of one part ({some} ...) are {what} than a row of {length} tokens"
        )
    return rows, fitted.note()


def _packed(
    part: Sequence[Document], tokenizer: Tokenizer, length: int, names: Sequence[str]
) -> list[Row]:
    rows: list[Row] = []
    begin = [] if tokenizer.bos is None else [tokenizer.bos]
    for index, name in enumerate(names):
        ids: list[int] = []
        num_bytes: list[int] = []
        begins: set[int] = set()
        for document in (document for document in part if document.domain == name):
            tokens, bytes_of_tokens = tokenizer.encode(document.text)
            begins |= {len(ids)} if begin else set()
            ids += [*begin, *tokens, tokenizer.end]
            num_bytes += [*[0] * len(begin), *bytes_of_tokens, 0]
        for start in range(0, len(ids) - length, length):
            stop = start + length + 1
            unlearned = [place - start for place in range(start, stop) if place in begins]
            rows.append(Row(ids[start:stop], num_bytes[start:stop], 0, (), index, unlearned))
    return rows


def _answers(
    part: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    fitted: Fitted,
    names: Sequence[str],
) -> Iterator[Row]:
    begin = [] if tokenizer.bos is None else [tokenizer.bos]
    for document in part:
        prompt, _ = tokenizer.encode(document.prompt or "")
        answer, bytes_of_answer = tokenizer.encode(document.text)
        end = [] if document.cut else [tokenizer.end]
        # Without a prompt the first token of the answer is predicted from an end token.
        whole = [*begin, *prompt] or [tokenizer.end]
        read = fitted.prompt(document, whole, len(answer), length, len(begin), len(end))
        if read is None:
            continue
        ids = [*read, *answer, *end][: length + 1]
        num_bytes = [*[0] * len(read), *bytes_of_answer, *[0] * len(end)][: length + 1]
        context, _ = tokenizer.encode(document.context)
        domain = names.index(document.domain)
        yield Row(ids, num_bytes, len(read), context, domain, range(len(begin)))
