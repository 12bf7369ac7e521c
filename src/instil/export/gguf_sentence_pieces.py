"""Tokenizer with the merges of SentencePiece in a GGUF file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instil.data.gguf_tokenizer import BYTE, UNKNOWN
from instil.data.sentence_pieces import (
    BYTE_TOKENS,
    PREPEND,
    REPLACE,
    SPACE,
    SPLIT_AT_SPACES,
    piece_merges,
)
from instil.data.tokenizer_library import merge_pairs


@dataclass(frozen=True)
class SentencePieces:
    """Pieces in the terms of llama.cpp.

    Args:
        scores: scores of the pieces; other tokens have none.
        types: types of the bytes and of the unknown token.
        adds_prefix: whether a text begins with a space that is not part of it.
    """

    scores: dict[str, float]
    types: dict[str, int]
    adds_prefix: bool


def sentence_pieces(content: Mapping[str, Any]) -> SentencePieces:
    """Describe a tokenizer in the terms of llama.cpp.

    Args:
        content: content of its ``tokenizer.json``, byte pairs with ``byte_fallback``.

    Raises:
        ValueError: if llama.cpp would cut texts differently.
    """
    model = content["model"]
    missing = [token for token in BYTE_TOKENS if token not in model["vocab"]]
    if missing:
        raise ValueError(
            "gguf: llama.cpp needs a token for each byte. Expected <0x00> to <0xFF> in the "
            f"vocabulary, got none for {len(missing)} of them, such as {missing[0]}"
        )
    for token in content["added_tokens"]:
        if token["normalized"]:
            raise ValueError(
                f"gguf: llama.cpp finds {token['content']!r} before it replaces spaces. Expected "
                "an added token with normalized: false"
            )
    types = dict.fromkeys(BYTE_TOKENS, BYTE)
    if model.get("unk_token"):
        types[model["unk_token"]] = UNKNOWN
    others = {*types, *(token["content"] for token in content["added_tokens"])}
    return SentencePieces(_scores(model, others), types, _adds_prefix(content))


def _scores(model: Mapping[str, Any], others: set[str]) -> dict[str, float]:
    """Return scores with which the merges of SentencePiece are those of a byte-pair model."""
    merges = list(merge_pairs(model))
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    scores = {word: -float(ranks.get(word, 0)) for word in model["vocab"] if word not in others}
    expected = piece_merges(scores)
    has_order = [left + right for left, right in merges] == [
        left + right for left, right in expected
    ]
    if not has_order or set(merges) != set(expected):
        raise ValueError(
            "gguf: llama.cpp merges any two adjacent pieces that form a token. Expected a "
            f"tokenizer with these merges ({len(expected)}), as SentencePiece has, got others "
            f"({len(merges)})"
        )
    return scores


def _adds_prefix(content: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer puts a space before a text; spaces are replaced by a symbol."""
    normalizer, splitter = content["normalizer"] or {}, content["pre_tokenizer"]
    steps = normalizer.get("normalizers", [normalizer])
    # Gemma's splitter cuts at spaces, which its normaliser has replaced.
    if splitter in (None, SPLIT_AT_SPACES) and steps in ([REPLACE], [PREPEND, REPLACE]):
        return len(steps) == 2
    is_metaspace = splitter is not None and splitter["type"] == "Metaspace" and not normalizer
    if not is_metaspace or splitter["split"] or splitter["replacement"] != SPACE:
        raise ValueError(
            "gguf: unsupported tokenizer of the data. Expected pieces whose only change of a text "
            f"is {SPACE} in place of spaces, and perhaps before the text, got the normaliser "
            f"{normalizer} and the pre-tokenizer {splitter}"
        )
    if splitter["prepend_scheme"] == "never":
        return False
    warnings.warn(
        "gguf: llama.cpp puts a space also before a text that begins with one and after special "
        "tokens, the tokenizer of the data does not. Such texts are cut into other tokens",
        stacklevel=2,
    )
    return True
