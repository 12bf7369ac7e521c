"""Folders of tiny random language models of transformers with a tokenizer, and conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.students.families import family

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Chat template without marks of generated text."""
SPECIAL = ["<pad>", "<s>", "</s>"]


def tokenizer() -> Any:
    """Return a tokenizer of bytes with three special tokens, 259 in all."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    level = tokenizers.pre_tokenizers.ByteLevel
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = level(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(level.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(alphabet) + len(SPECIAL),
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner.train_from_iterator([], trainer)
    roles = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles)
    fast.chat_template = TEMPLATE
    return fast


def write_model(folder: Path, name: str, padding: int = 0, **options: Any) -> Any:
    """Write a random model of a family and its tokenizer; return the model.

    Args:
        folder: folder to write.
        name: family.
        padding: tokens of the head beyond those of the tokenizer.
        **options: entries of the configuration.
    """
    own = tokenizer()
    model = family(name, **{"vocab_size": len(own) + padding} | options)
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return model


def write_chat(file: Path, size: int = 24) -> None:
    """Write conversations of one question and one answer."""
    rows = []
    for index in range(size):
        question = {"role": "user", "content": f"{index}+1?"}
        answer = {"role": "assistant", "content": str(index + 1)}
        rows.append(json.dumps({"messages": [question, answer]}))
    file.write_text("\n".join(rows))


def language_recipe(**sections: Any) -> dict[str, Any]:
    """Return a recipe with the conversations of ``chat.jsonl`` and the tokenizer of ``teacher``."""
    data = {"name": "chat", "files": "chat.jsonl", "tokenizer": "teacher", "length": 40}
    return {
        "task": "language",
        "data": data | {"rows": 8, "held_out": 4, "batch_size": 8},
        "objectives": {"forward_kl": {}},
        "train": {"epochs": 1, "optimizer": {"lr": 1e-3}},
        "seeds": [0],
        "export": False,
    } | sections


ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {"d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2},
    "bart": {"encoder_layers": 2, "decoder_layers": 2, "decoder_start_token_id": 2},
    "marian": {"encoder_layers": 2, "decoder_layers": 2, "decoder_start_token_id": 0},
}
"""Values of the configurations of encoder-decoders by family."""
HALVES: dict[str, Any] = {
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "forced_eos_token_id": 2,
}


def write_encoder_decoder(folder: Path, name: str) -> Any:
    """Write a random encoder-decoder and its tokenizer; return the model.

    The tokenizer adds the special tokens of the family.
    """
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    own = tokenizer()
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    values = special | {"vocab_size": len(own), "d_model": 16} | ENCODER_DECODERS[name]
    if name == "t5":
        values["decoder_start_token_id"] = 0
    else:
        values |= HALVES
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[name](**values)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    own.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>" if name == "bart" else "$A </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return model


def write_pairs(file: Path, size: int = 24) -> None:
    """Write pairs of a sum and its result."""
    rows = [{"source": f"{index}+1", "target": str(index + 1)} for index in range(size)]
    file.write_text("\n".join(map(json.dumps, rows)))
