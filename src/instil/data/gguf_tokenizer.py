"""Tokenizers and metadata of GGUF files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from instil.data.pre_tokenizers import IGNORING_MERGES, PRE_TOKENIZERS
from instil.data.special_tokens import (
    BosOption,
    EndOption,
    SpecialTokenFiles,
    bos_token,
    end_tokens,
)
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizer_library import MISSING, byte_level_tokenizer, tokenizer_library

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
"""Types of special, added and unused tokens in a GGUF file."""


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
    kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind[0] != "gpt2" or kind[1] not in PRE_TOKENIZERS:
        supported = " or ".join(f"gpt2/{name}" for name in PRE_TOKENIZERS)
        raise ValueError(
            f"{path}: unsupported tokenizer. Expected {supported}, got {kind[0]}/{kind[1]}. "
            "Use its "
            "tokenizer.json"
        )
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {word: index for index, word in enumerate(words)}
    model = library.models.BPE(vocabulary, merges, ignore_merges=kind[1] in IGNORING_MERGES)
    inner = byte_level_tokenizer(library, model, PRE_TOKENIZERS[kind[1]])
    types = fields["tokenizer.ggml.token_type"]
    added = [
        library.AddedToken(word, special=code == CONTROL, normalized=False)
        for word, code in zip(words, types, strict=True)
        if code in (CONTROL, USER_DEFINED)
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
