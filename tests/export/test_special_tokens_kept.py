"""An exported student has the special tokens and chat template of its tokenizer's folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.data.gguf_tokenizer import load_gguf_tokenizer
from instil.data.sources.text import text
from instil.export.gguf import to_gguf
from instil.export.transformers import to_transformers
from instil.students.vocabulary import keep_tokens
from instil.tasks.language import call
from tests.data.small_tokenizer import TEMPLATE, folder_of
from tests.students.nets import llama

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "<tool>"]
CONFIG = {
    "bos_token": "<s>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "additional_special_tokens": ["<|im_start|>", "<tool>"],
    "model_max_length": 64,
    "chat_template": TEMPLATE,
    "tokenizer_class": "PreTrainedTokenizerFast",
}
GENERATION = {"eos_token_id": [2, 0], "do_sample": True, "temperature": 0.6, "top_p": 0.9}


def source_and_samples(path: Path, prune: bool, begins_with: str | None = None) -> tuple[Path, Any]:
    source = folder_of(
        path / "source",
        SPECIAL,
        begins_with,
        tokenizer_config=CONFIG,
        generation_config=GENERATION,
    )
    (path / "texts").mkdir()
    for index in range(6):
        (path / "texts" / f"{index}.txt").write_text(f"{index}: the quick brown fox " * 4)
    samples: Any = text(
        str(path / "texts"), tokenizer=str(source), length=8, rows=2, held_out=2, prune=prune
    ).train
    return source, samples


def student_of(samples: Any, prune: bool) -> tuple[Net, Any]:
    model = llama(vocab_size=samples.tokenizer.size, eos_token_id=1)
    if not prune:
        return Net(model, call).eval(), samples.tokenizer
    model = keep_tokens(model, samples.tokens)
    return Net(model, call).eval(), samples.tokenizer.pruned(samples.tokens)


def exported(path: Path, prune: bool, begins_with: str | None = None) -> tuple[Any, Any, Any]:
    """Return tokenizers of source and student, and the student, loaded by transformers."""
    source, samples = source_and_samples(path, prune, begins_with)
    net, tokenizer = student_of(samples, prune)
    batch = samples.__getitems__([0]) | {"index": torch.tensor([0])}
    to_transformers(net, batch, path / "student", tokenizer)
    transformers = pytest.importorskip("transformers")
    read = transformers.AutoTokenizer.from_pretrained
    model = transformers.AutoModelForCausalLM.from_pretrained(path / "student")
    return read(source), read(path / "student"), model


@pytest.mark.parametrize("prune", [False, True])
def test_special_tokens_and_chat_template_are_those_of_the_source(
    tmp_path: Path, prune: bool
) -> None:
    source, student, model = exported(tmp_path, prune)
    for role in ("bos_token", "eos_token", "pad_token", "chat_template"):
        assert getattr(student, role) == getattr(source, role), role
    assert set(student.all_special_tokens) == set(source.all_special_tokens)
    conversation = [{"role": "user", "content": "the quick brown fox"}]
    assert student.apply_chat_template(conversation, tokenize=False) == (
        source.apply_chat_template(conversation, tokenize=False)
    )
    ends = [student.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert model.generation_config.eos_token_id == ends
    assert model.generation_config.pad_token_id == student.pad_token_id == ends[1]
    assert model.generation_config.bos_token_id == student.bos_token_id
    assert model.generation_config.temperature == 0.6
    assert model.generation_config.do_sample
    assert model.config.eos_token_id == ends
    ids = torch.tensor([[student.eos_token_id]])
    assert model.generate(ids, max_new_tokens=2).shape[1] <= 3


@pytest.mark.parametrize("begins_with", [None, "<s>"])
def test_texts_are_read_as_in_training(tmp_path: Path, begins_with: str | None) -> None:
    source, student, _ = exported(tmp_path, False, begins_with)
    words = "the quick brown fox"
    assert student(words)["input_ids"] == source(words)["input_ids"]
    begins = student(words)["input_ids"][0] == student.convert_tokens_to_ids("<s>")
    assert begins == (begins_with is not None)


def test_everybody_can_read_the_files_that_the_mask_allows(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        exported(tmp_path, False)
    finally:
        os.umask(mask)
    for file in (tmp_path / "student").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644, file.name


@pytest.mark.parametrize("begins_with", [None, "<s>"])
def test_a_gguf_file_has_ends_beginning_and_template(
    tmp_path: Path, begins_with: str | None
) -> None:
    pytest.importorskip("gguf")
    _, samples = source_and_samples(tmp_path, True, begins_with)
    net, tokenizer = student_of(samples, True)
    to_gguf(net, samples.__getitems__([0]), tmp_path / "student.gguf", tokenizer, "f32")
    read: Any = load_gguf_tokenizer(tmp_path / "student.gguf")
    names = [read.inner.id_to_token(end) for end in read.ends]
    assert names == ["<|im_end|>", "<|endoftext|>"]
    assert read.files.token("bos") == "<s>"
    assert read.files.token("pad") == "<|endoftext|>"
    assert read.files.chat_template == TEMPLATE
    assert (read.bos is None) == (begins_with is None)
    words = "the quick brown fox"
    assert read.encode(words)[0] == tokenizer.encode(words)[0]
