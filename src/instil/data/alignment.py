"""One text in the tokens of two tokenizers: where both end at the same byte, and which tokens say the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from instil.data.tokenizers import Tokenizer

UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def spans(mine: Sequence[int], theirs: Sequence[int]) -> tuple[list[int], list[int]]:
    """The span to which each token of either side belongs, from 0 on, where the tokens add so many bytes to one text.

    A span ends wherever both sides have a token that ends at the same byte; a token without bytes belongs to the one before it.
    Raises ValueError where the two sides do not add up to the same text.
    """
    ends = [list(accumulate(each)) for each in (mine, theirs)]
    totals = [end[-1] if end else 0 for end in ends]
    if totals[0] != totals[1]:
        raise ValueError(
            f"the tokens of one tokenizer stand for {totals[0]} bytes, those of the other for {totals[1]}; both must be of one text"
        )
    if min(map(len, ends)) == 0 < max(map(len, ends)):
        raise ValueError(
            "one of the tokenizers has no token for this text, the other has some; they cannot be compared on it"
        )
    common = sorted(set(ends[0]) & set(ends[1]) - {0})
    first, second = ([bisect_left(common, byte) for byte in end] for end in ends)
    return first, second


def same_tokens(mine: Tokenizer, theirs: Tokenizer) -> list[tuple[int, int]]:
    """(theirs, mine) of every two tokens that are the same text, and of those that end a text.

    A token that is only a part of a character, and one of several with the same text, is left out.
    """
    spelled, other = _spelled(mine), _spelled(theirs)
    return [
        (theirs.end, mine.end),
        *((number, spelled[word]) for word, number in other.items() if word in spelled),
    ]


def _spelled(tokenizer: Tokenizer) -> dict[str, int]:
    found: dict[str, int] = {}
    twice = set()
    for number in range(tokenizer.size):
        word = tokenizer.decode([number])
        if number == tokenizer.end or not word or UNREADABLE in word:
            continue
        if word in found:
            twice.add(word)
        found[word] = number
    return {word: number for word, number in found.items() if word not in twice}
