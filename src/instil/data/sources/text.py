"""Token rows of text documents: files, folders, package data or the standard library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from instil.data.aligned import aligned
from instil.data.documents import documents
from instil.data.fitting import TooLong, TooLongPolicy
from instil.data.special_tokens import BosOption, EndOption
from instil.data.splits import Splits
from instil.data.token_rows import Context, Count, of_documents
from instil.data.tokenizers import Tokenizer, tokenizer


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
    end: EndOption | None = None,
    bos: BosOption = "auto",
    too_long: TooLongPolicy = "error",
    teacher_tokenizer: str | None = None,
    teacher_length: int | None = None,
    teacher_end: EndOption | None = None,
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

    ``end``: the token that is appended to texts, or a list, of which every one ends a text (null: those of the tokenizer's folder, see
    ``end_tokens``); ``teacher_end``: that of the teacher's tokenizer. ``bos``: whether each text begins with the tokenizer's token for that,
    which is read and never learned (``auto``: as the tokenizer does itself). ``too_long``: a prompt and an answer that are longer than a row
    are an ``error``, are left out (``drop``), or lose the beginning of the prompt (``truncate``).

    Raises ValueError for texts shorter than one row, without ``cut`` for a prompt and answer that are longer, and for a domain without rows.
    """
    if length < 2:
        raise ValueError(f"a row needs at least 2 tokens, not {length}")
    parts = documents(path, base)
    limits, handling = (rows, held_out, held_out), TooLong(too_long, cut)
    texts = (document.text for document in parts[0])
    own_tokenizer = _tokenizer(tokenizer, texts, base, end, bos)
    if teacher_tokenizer is not None:
        texts = (document.text for document in parts[0])
        other = _tokenizer(teacher_tokenizer, texts, base, teacher_end, bos)
        lengths = (length, teacher_length or length)
        return aligned(parts, (own_tokenizer, other), lengths, limits, prune, handling)
    return of_documents(parts, own_tokenizer, length, limits, prune, handling, context, domain)


def _tokenizer(
    name: str, texts: Iterator[str], base: Path, end: EndOption | None, bos: BosOption
) -> Tokenizer:
    return tokenizer(
        name, texts, base, end, bos
    )  # the option of ``text`` bears the function's name
