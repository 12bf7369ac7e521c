"""Folder with a small tokenizer and its configuration files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TEXTS = ["the quick brown fox jumps over the lazy dog 0123456789: "] * 3
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"


def folder_of(
    path: Path, special: list[str], begins_with: str | None = None, **files: dict[str, Any]
) -> Path:
    """Write ``tokenizer.json`` and ``files`` (contents by name, without the suffix .json).

    ``begins_with`` is the special token that the post-processor inserts before a text.
    """
    tokenizers: Any = pytest.importorskip("tokenizers")
    path.mkdir(parents=True, exist_ok=True)
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    if begins_with is not None:
        inner.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{begins_with} $A",
            special_tokens=[(begins_with, inner.token_to_id(begins_with))],
        )
    inner.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path
