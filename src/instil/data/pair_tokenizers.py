"""Tokenizers of pairs of texts, with one vocabulary for sources and targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from instil.data.tokenizers import Tokenizer, load_tokenizer

UNITS = ("characters", "words")
"""Names of tokenizers that split a text into characters or at white space."""
SPECIAL = ("<pad>", "<end>", "<unknown>")
"""First symbols of a vocabulary of characters and words."""
PAD, END, UNKNOWN = range(len(SPECIAL))


class PairTokenizer(Protocol):
    """Texts of sources and targets to token ids, and ids of targets back to text.

    Attributes:
        size: number of tokens.
        start: first token of a decoder.
        end: token that ends a source and a target.
        pad: token of padding.
        is_text: whether characters and words of a target's text can be counted.
    """

    size: int
    start: int
    end: int
    pad: int
    is_text: bool

    def source_ids(self, text: str) -> list[int]:
        """Return the token ids of a source, without the end token."""

    def target_ids(self, text: str) -> list[int]:
        """Return the token ids of a target, without the end token."""

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of a target's token ids."""


class SymbolTokenizer:
    """Tokenizer of characters or words, with a vocabulary of all symbols of some pairs.

    Args:
        source: ``characters`` or ``words``.
        target: ``characters`` or ``words``.
        symbols: symbols in the order of their ids, after the special ones.
    """

    start, end, pad = PAD, END, PAD

    def __init__(self, source: str, target: str, symbols: Sequence[str]):
        self.source = source
        self.target = target
        self.symbols = (*SPECIAL, *symbols)
        self.size = len(self.symbols)
        self.is_text = target == "characters"
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}

    def source_ids(self, text: str) -> list[int]:
        return [self._ids.get(symbol, UNKNOWN) for symbol in split(text, self.source)]

    def target_ids(self, text: str) -> list[int]:
        return [self._ids.get(symbol, UNKNOWN) for symbol in split(text, self.target)]

    def text_of(self, ids: Sequence[int]) -> str:
        separator = " " if self.target == "words" else ""
        # A model may have more tokens than the data.
        return separator.join(self.symbols[token] for token in ids if token < self.size)


class SubwordPairTokenizer:
    """One tokenizer of subwords or bytes for sources and targets.

    The end token is also the first token of the decoder, as in BART.

    Args:
        tokenizer: the tokenizer.
        special_tokens: whether the special tokens of the tokenizer's post-processor are added, such
            as the first token of BART.

    Raises:
        ValueError: if the post-processor appends tokens after the end token.
    """

    is_text = True

    def __init__(self, tokenizer: Tokenizer, special_tokens: bool = True):
        self.tokenizer = tokenizer
        self.size = tokenizer.size
        self.end = self.start = tokenizer.end
        self.pad = _padding_of(tokenizer)
        # Only tokenizers of files have a post-processor.
        inner: Any = getattr(tokenizer, "inner", None)
        has_processor = getattr(inner, "post_processor", None) is not None
        self.processor: Any = inner if special_tokens and has_processor else None
        if self.processor is not None:
            self._check_last_token()

    def _check_last_token(self) -> None:
        added = self.processor.encode("", add_special_tokens=True).ids
        if self.end in added[:-1]:
            names = ", ".join(map(self.processor.id_to_token, added))
            raise ValueError(
                f"tokenizer: it adds {names}, with tokens after the end token. Expected the end "
                "token as the last one. Set special_tokens: false, and write a language code into "
                "the texts"
            )

    def source_ids(self, text: str) -> list[int]:
        if self.processor is None:
            return self.tokenizer.encode(text)[0]
        ids: list[int] = self.processor.encode(text, add_special_tokens=True).ids
        return ids[:-1] if ids and ids[-1] == self.end else ids

    def target_ids(self, text: str) -> list[int]:
        return self.source_ids(text)

    def text_of(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in ids if token < self.size])


def _padding_of(tokenizer: Tokenizer) -> int:
    """Padding token that the files of a tokenizer name; its end token if they name none."""
    files = getattr(tokenizer, "files", None)
    token = None if files is None else files.token("pad")
    inner: Any = getattr(tokenizer, "inner", None)
    index = None if token is None else inner.token_to_id(token)
    return tokenizer.end if index is None else int(index)


def split(text: str, unit: str) -> list[str]:
    """Return the characters of a text, or its words.

    Example:
        >>> split("to be", "words")
        ['to', 'be']
    """
    return list(text) if unit == "characters" else text.split()


def pair_tokenizer(
    source: str,
    target: str | None,
    pairs: Iterable[tuple[str, str]],
    base: Path = Path(),
    special_tokens: bool = True,
) -> PairTokenizer:
    """Return the tokenizer of pairs.

    Args:
        source: ``characters``, ``words``, ``bytes``, ``bpe:SIZE`` or a tokenizer file.
        target: ``characters`` or ``words``; None: as for the source.
        pairs: source and target of the training pairs.
        base: folder that relative paths start from.
        special_tokens: whether a tokenizer file adds the special tokens of its post-processor.

    Raises:
        ValueError: for two different tokenizers with subwords, and an unknown tokenizer.
    """
    pairs = list(pairs)
    other = source if target is None else target
    if source in UNITS and other in UNITS:
        symbols: set[str] = set()
        for source_text, target_text in pairs:
            symbols.update(split(source_text, source))
            symbols.update(split(target_text, other))
        return SymbolTokenizer(source, other, sorted(symbols))
    if other != source:
        raise ValueError(
            f"target_tokenizer: {other} cannot be combined with tokenizer {source}. Expected "
            f"{' or '.join(UNITS)} for both. Leave target_tokenizer out for subwords"
        )
    loaded = load_tokenizer(source, chain.from_iterable(pairs), base)
    return SubwordPairTokenizer(loaded, special_tokens)


def tokenizer_of_samples(samples: Any) -> Any:
    """Return the tokenizer of samples, None if they have none.

    Args:
        samples: samples of any kind. For pairs of subwords it is the tokenizer that sources and
            targets share.
    """
    tokenizer = getattr(samples, "tokenizer", None)
    if tokenizer is None:
        tokenizer = getattr(getattr(samples, "encode_texts", None), "tokenizer", None)
    return tokenizer.tokenizer if isinstance(tokenizer, SubwordPairTokenizer) else tokenizer
