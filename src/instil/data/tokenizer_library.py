"""The library ``tokenizers``, imported where it is used."""

from __future__ import annotations

from typing import Any

MISSING = 'the tokenizer {} needs the package {}: pip install "instil[text]"'


def byte_level_tokenizer(library: Any, model: Any, digits: bool = False) -> Any:
    """Return a byte-level tokenizer of the library.

    Args:
        library: result of ``tokenizer_library``.
        model: model of the library.
        digits: whether each digit is a word of its own.
    """
    inner = library.Tokenizer(model)
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = level
    if digits:
        split_digits = library.pre_tokenizers.Digits(individual_digits=True)
        inner.pre_tokenizer = library.pre_tokenizers.Sequence([split_digits, level])
    inner.decoder = library.decoders.ByteLevel()
    return inner


def tokenizer_library(name: str) -> Any:
    """Return the library.

    Args:
        name: name of the tokenizer, for the message.

    Raises:
        ValueError: if the library is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(MISSING.format(name, "tokenizers")) from error
    return tokenizers
