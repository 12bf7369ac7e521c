"""Division of documents into token rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, Literal

from annotated_types import Ge

from instil.cards import suggestion
from instil.data.documents import Document
from instil.data.fitting import REFUSED, Fitted, TooLong
from instil.data.splits import Splits
from instil.data.token_rows import Row, TokenRows
from instil.data.tokenizers import Tokenizer

Context = Literal["separate", "read"]
Count = Annotated[int, Ge(1)]


def of_documents(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
    too_long: TooLong = REFUSED,
    context: Context = "separate",
    domain: str | None = None,
) -> Splits:
    """Divide documents into rows of tokens.

    Args:
        parts: train, validation and test documents.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens.
        limits: largest number of rows of each part; None for all.
        prune: whether to reduce the vocabulary to the tokens of the rows.
        too_long: handling of prompts and answers that do not fit into a row.
        context: ``read`` for a context in front of the prompt; ``separate``: in keys of its own.
        domain: only rows of this domain; None for all.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for texts that are shorter than one row, and for a domain without rows.
    """
    names = domain_names(parts)
    if context == "read":
        parts = [[_with_context(document) for document in part] for part in parts]
    rows_of, notes = rows_of_parts(parts, tokenizer, length, limits, too_long)
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


def domain_names(parts: Sequence[Sequence[Document]]) -> list[str]:
    """Return the domains of all documents, in alphabetical order."""
    domains: set[str] = set()
    for part in parts:
        domains.update(document.domain for document in part)
    return sorted(domains)


def rows_of_parts(
    parts: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None],
    too_long: TooLong,
) -> tuple[list[list[Row]], list[str]]:
    """Return the rows of each part, and a note about its long documents.

    Args:
        parts: documents of each part.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens.
        limits: largest number of rows of each part; None for all.
        too_long: handling of prompts and answers that do not fit into a row.
    """
    names = domain_names(parts)
    rows_of, notes = [], []
    for part, limit in zip(parts, limits, strict=True):
        rows, note = _rows(part, tokenizer, length, limit, too_long, names)
        rows_of.append(rows)
        notes.append(note)
    return rows_of, notes


def pruned(
    parts: Sequence[list[Row]], tokenizer: Tokenizer, prune: bool
) -> tuple[Sequence[list[Row]], list[int]]:
    """Renumber the tokens of rows by the vocabulary that they use.

    Args:
        parts: rows of each part.
        tokenizer: tokenizer of the rows.
        prune: False to return the rows unchanged.

    Returns:
        Rows with the new ids, and the old id of each new one (empty without ``prune``).
    """
    if not prune:
        return parts, []
    used: set[int] = set()
    for part in parts:
        for row in part:
            used.update(row.tokens, row.context)
    tokens = sorted(tokenizer.closed(used))
    new_ids = {token: new for new, token in enumerate(tokens)}
    return [[_renumbered(row, new_ids) for row in part] for part in parts], tokens


def _renumbered(row: Row, new_ids: dict[int, int]) -> Row:
    return row._replace(
        tokens=[new_ids[token] for token in row.tokens],
        context=[new_ids[token] for token in row.context],
    )


def _with_context(document: Document) -> Document:
    """A document with its context in front of the prompt."""
    if document.prompt is None:
        return document
    return replace(document, prompt=document.context + document.prompt, context="")


def _of_domain(rows: Sequence[Row], domain: str, names: Sequence[str]) -> list[Row]:
    if domain not in names:
        hint = " The texts have no domains."
        if any(names):
            hint = suggestion(domain, filter(None, names))
        raise ValueError(f"domain: no text has the domain '{domain}'.{hint}")
    of_domain = [row._replace(domain=0) for row in rows if names[row.domain] == domain]
    if not of_domain:
        raise ValueError(f"domain: one part of the texts has no row of '{domain}'")
    return of_domain


def _rows(
    part: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    limit: int | None,
    too_long: TooLong,
    names: Sequence[str],
) -> tuple[list[Row], str]:
    """Rows of ``length`` + 1 tokens, the last one a target only, and a note about long documents.

    A ``limit`` selects evenly spaced rows of plain texts, and the first rows of answers.
    """
    fitted = Fitted(too_long)
    if any(document.prompt is not None for document in part):
        rows = list(islice(_answers(part, tokenizer, length, fitted, names), limit))
    else:
        rows = _packed(part, tokenizer, length, names)
        if limit is not None and limit < len(rows):
            rows = [rows[index * len(rows) // limit] for index in range(limit)]
    if not rows:
        examples = ", ".join(document.name for document in part[:3])
        comparison = "longer" if fitted.dropped else "shorter"
        raise ValueError(
            f"the texts of one part ({examples} ...) are {comparison} than a row of {length} tokens"
        )
    return rows, fitted.note()


def _packed(
    part: Sequence[Document], tokenizer: Tokenizer, length: int, names: Sequence[str]
) -> list[Row]:
    """Rows of consecutive texts, domain by domain."""
    rows: list[Row] = []
    begin = [] if tokenizer.bos is None else [tokenizer.bos]
    for domain_index, name in enumerate(names):
        ids: list[int] = []
        num_bytes: list[int] = []
        bos_positions: set[int] = set()
        for document in (document for document in part if document.domain == name):
            tokens, bytes_of_tokens = tokenizer.encode(document.text)
            if begin:
                bos_positions.add(len(ids))
            ids += [*begin, *tokens, tokenizer.end]
            num_bytes += [*[0] * len(begin), *bytes_of_tokens, 0]
        # Rows overlap by one token: the last target of one is the first input of the next.
        for start in range(0, len(ids) - length, length):
            stop = start + length + 1
            unlearned = [index - start for index in range(start, stop) if index in bos_positions]
            tokens = ids[start:stop]
            rows.append(Row(tokens, num_bytes[start:stop], 0, (), domain_index, unlearned))
    return rows


def _answers(
    part: Sequence[Document],
    tokenizer: Tokenizer,
    length: int,
    fitted: Fitted,
    names: Sequence[str],
) -> Iterator[Row]:
    """One row per document, whose prompt is input only."""
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
