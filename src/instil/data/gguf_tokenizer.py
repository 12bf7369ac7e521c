"""Tokenizers and metadata of GGUF files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.data.pre_tokenizers import IGNORING_MERGES, PRE_TOKENIZERS
from instil.data.sentence_pieces import PIECES, piece_tokenizer
from instil.data.special_tokens import (
    BosOption,
    EndOption,
    SpecialTokenFiles,
    bos_token,
    end_tokens,
)
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizer_library import MISSING, byte_level_tokenizer, tokenizer_library

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens in a GGUF file: of texts, unknown, special, added, unused, and single bytes."""


def load_gguf_tokenizer(
    path: Path, end: EndOption | None = None, bos: BosOption = "auto"
) -> SubwordTokenizer:
    """Return the tokenizer in the metadata of a GGUF file.

    Args:
        path: GGUF file.
        end: tokens that end a text; None for those that the file defines.
        bos: whether a text begins with the tokenizer's first token; ``auto`` for its default.

    Raises:
        ValueError: for a tokenizer of an unsupported kind.
    """
    library = tokenizer_library(path.name)
    fields = gguf_metadata(path)
    inner = _tokenizer(library, fields, path)
    words = fields["tokenizer.ggml.tokens"]
    types = fields["tokenizer.ggml.token_type"]
    added = [
        library.AddedToken(word, special=code != USER_DEFINED, normalized=False)
        for word, code in zip(words, types, strict=True)
        if code in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    inner.add_tokens(added)
    files = SpecialTokenFiles.of_gguf(fields)
    return SubwordTokenizer(
        inner,
        end_tokens(inner, files, path.name, end),
        None,
        bos_token(inner, files, path.name, bos),
        files,
        path,
    )


def _tokenizer(library: Any, fields: Mapping[str, Any], path: Path) -> Any:
    """Tokenizer of the library, without added tokens."""
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if model == PIECES:
        return _pieces(library, fields)
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        supported = " or ".join([PIECES, *(f"gpt2/{name}" for name in PRE_TOKENIZERS)])
        raise ValueError(
            f"{path}: unsupported tokenizer. Expected {supported}, got {model}/{pre}. Use its "
            "tokenizer.json"
        )
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {word: index for index, word in enumerate(fields["tokenizer.ggml.tokens"])}
    pairs = library.models.BPE(vocabulary, merges, ignore_merges=pre in IGNORING_MERGES)
    return byte_level_tokenizer(library, pairs, PRE_TOKENIZERS[pre])


def _pieces(library: Any, fields: Mapping[str, Any]) -> Any:
    """Tokenizer with the merges of SentencePiece."""
    words, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    scores = {
        word: score
        for word, score, kind in zip(words, fields["tokenizer.ggml.scores"], types, strict=True)
        if kind == NORMAL
    }
    unknown = next((word for word, kind in zip(words, types, strict=True) if kind == UNKNOWN), None)
    adds_prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    return piece_tokenizer(library, words, scores, unknown, adds_prefix)


def gguf_metadata(path: Path) -> dict[str, Any]:
    """Return the fields of a GGUF file, without its tensors.

    Raises:
        ValueError: for another file, and without the package ``gguf``.
    """
    fields = open_gguf(path, path.stat().st_mtime).fields
    return {name: field.contents() for name, field in fields.items()}


@functools.lru_cache(maxsize=1)
def open_gguf(path: Path, _changed: float) -> Any:
    """Return the reader of a GGUF file, which is cached: reading a vocabulary takes seconds.

    Args:
        path: GGUF file.
        _changed: modification time, a key of the cache.

    Raises:
        ValueError: for another file, and without the package ``gguf``.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ValueError(MISSING.format(path.name, "gguf")) from error
    try:
        return GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from error
