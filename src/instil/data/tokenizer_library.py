"""The library ``tokenizers``, imported where it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
"""Pre-tokenizer of GPT-2, as in a ``tokenizer.json``."""
MISSING = 'the tokenizer {} needs the package {}: pip install "instil[text]"'


def byte_level_tokenizer(
    library: Any, model: Any, steps: Sequence[Mapping[str, Any]] = (BYTE_LEVEL,)
) -> Any:
    """Return a byte-level tokenizer of the library.

    Args:
        library: result of ``tokenizer_library``.
        model: model of the library.
        steps: steps of the pre-tokenizer, as in a ``tokenizer.json``.
    """
    inner = library.Tokenizer(model)
    inner.pre_tokenizer = _pre_tokenizer(library, steps)
    inner.decoder = library.decoders.ByteLevel()
    return inner


def _pre_tokenizer(library: Any, steps: Sequence[Mapping[str, Any]]) -> Any:
    """Pre-tokenizer of some steps; the library reads them only as part of a whole tokenizer."""
    content = json.loads(library.Tokenizer(library.models.BPE()).to_str())
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(steps)}
    if len(steps) == 1:
        (content["pre_tokenizer"],) = steps
    return library.Tokenizer.from_str(json.dumps(content)).pre_tokenizer


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


def merge_pairs(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the two parts of each merge, which older files write as one text.

    Args:
        model: section ``model`` of a ``tokenizer.json``, byte pairs.
    """
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right
