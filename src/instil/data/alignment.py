"""Alignment of one text in the tokens of two tokenizers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from instil.data.tokenizers import Tokenizer

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Character that a decoder returns for part of a character."""


def spans(
    student_bytes: Sequence[int], teacher_bytes: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the index of the span that each token belongs to, on both sides.

    A span ends wherever both sides have a token that ends at the same byte. A token without bytes
    belongs to the span of the token before it.

    Args:
        student_bytes: number of bytes of the text that each student token adds.
        teacher_bytes: number of bytes of the text that each teacher token adds.

    Returns:
        Span indices of the student's and of the teacher's tokens, from 0.

    Raises:
        ValueError: if the two sides do not add up to the same text.
    """
    ends = [list(accumulate(each)) for each in (student_bytes, teacher_bytes)]
    totals = [end[-1] if end else 0 for end in ends]
    if totals[0] != totals[1]:
        raise ValueError(
            f"the tokens of one tokenizer stand for {totals[0]} bytes, those of the other for "
            f"{totals[1]}; both must be of one text"
        )
    if min(map(len, ends)) == 0 < max(map(len, ends)):
        raise ValueError(
            "one of the tokenizers has no token for this text, the other has some; they cannot be "
            "compared on it"
        )
    common = sorted(set(ends[0]) & set(ends[1]) - {0})
    first, second = ([bisect_left(common, byte) for byte in end] for end in ends)
    return first, second


def same_tokens(
    student_tokenizer: Tokenizer, teacher_tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Return the pairs of token ids (teacher, student) that stand for the same text.

    The end tokens are a pair. Tokens that are part of a character, and tokens that share their text
    with others of the same tokenizer, are left out.

    Args:
        student_tokenizer: tokenizer of the student.
        teacher_tokenizer: tokenizer of the teacher.

    Returns:
        (teacher id, student id) of each pair.
    """
    student_ids = _unique_texts(student_tokenizer)
    teacher_ids = _unique_texts(teacher_tokenizer)
    return [
        (teacher_tokenizer.end, student_tokenizer.end),
        *((index, student_ids[text]) for text, index in teacher_ids.items() if text in student_ids),
    ]


def _unique_texts(tokenizer: Tokenizer) -> dict[str, int]:
    """Token id by text, for texts of exactly one token."""
    ids: dict[str, int] = {}
    repeated = set()
    for index in range(tokenizer.size):
        text = tokenizer.decode([index])
        if index == tokenizer.end or not text or UNREADABLE in text:
            continue
        if text in ids:
            repeated.add(text)
        ids[text] = index
    return {text: index for text, index in ids.items() if text not in repeated}
