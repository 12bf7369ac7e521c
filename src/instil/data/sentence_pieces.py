"""Byte-pair tokenizers with the merges of SentencePiece, such as those of Llama 2 and Gemma."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

PIECES = "llama"
"""Name of these tokenizers in a GGUF file."""
SPACE = "\u2581"
"""Symbol in place of a space."""
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Tokens of the bytes of characters that are not in the vocabulary."""
PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
"""Steps of the normaliser, as in a ``tokenizer.json``."""
SPLIT_AT_SPACES = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
"""Pre-tokenizer of Gemma."""


def piece_merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return all merges of SentencePiece: any two adjacent pieces that form a piece.

    Args:
        scores: score of each piece. Of several possible merges, that with the best score is done.

    Returns:
        Parts of each merge, the best merge first.

    Example:
        >>> piece_merges({"a": 0.0, "b": 0.0, "ab": -2.0, "ba": -1.0})
        [('b', 'a'), ('a', 'b')]
    """
    merges = []
    for word in sorted(scores, key=lambda piece: -scores[piece]):
        for cut in range(1, len(word)):
            left, right = word[:cut], word[cut:]
            if left in scores and right in scores:
                merges.append((left, right))
    return merges


def piece_tokenizer(
    library: Any,
    words: Sequence[str],
    scores: Mapping[str, float],
    unknown: str | None,
    adds_prefix: bool,
) -> Any:
    """Return a tokenizer of the library with the merges of SentencePiece.

    Args:
        library: result of ``tokenizer_library``.
        words: all tokens, by their id.
        scores: scores of the tokens that merges form.
        unknown: token in place of characters without bytes; None: there is none.
        adds_prefix: whether a text begins with a space that is not part of it.
    """
    steps: list[Mapping[str, Any]] = [PREPEND, REPLACE] if adds_prefix else [REPLACE]
    content = json.loads(library.Tokenizer(library.models.BPE()).to_str())
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    content["decoder"] = {"type": "Sequence", "decoders": _decoders(adds_prefix)}
    content["model"] |= {
        "vocab": {word: index for index, word in enumerate(words)},
        "merges": piece_merges(scores),
        "unk_token": unknown,
        "fuse_unk": True,
        "byte_fallback": True,
    }
    return library.Tokenizer.from_str(json.dumps(content))


def _decoders(adds_prefix: bool) -> list[dict[str, Any]]:
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if adds_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return decoders
