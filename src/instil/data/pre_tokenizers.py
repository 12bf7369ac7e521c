"""Pre-tokenizers of byte-pair tokenizers by their name in llama.cpp."""

from __future__ import annotations

from typing import Any

from instil.data.tokenizer_library import BYTE_LEVEL


def _split(digits: str) -> list[dict[str, Any]]:
    """Steps that split a text by an expression and map the words to bytes.

    Args:
        digits: expression for a word of digits, which differs between the tokenizers.
    """
    expression = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
    return [split, BYTE_LEVEL | {"use_regex": False}]


PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "llama-bpe": _split(r"\p{N}{1,3}"),
    "qwen2": _split(r"\p{N}"),
}
"""Steps of a pre-tokenizer, as in a ``tokenizer.json``. ``llama-bpe`` is that of Llama 3."""
IGNORING_MERGES = ("llama-bpe",)
"""Tokenizers that take a word as one token if it is in the vocabulary, whatever the merges are."""
