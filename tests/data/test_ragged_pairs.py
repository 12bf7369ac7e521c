"""Preference pairs of the source chat: the rows of both texts belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.data.ragged_pairs import RaggedPairs
from instil.data.sources.chat import chat
from instil.data.splits import Splits
from tests.data.chat_files import tokenizer_folder, turns, write_jsonl


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    return tokenizer_folder(tmp_path / "tokenizer")


def pair(index: int, repeats: int = 1, rejected: str = "") -> dict[str, Any]:
    """Return a pair whose texts have the number of their row."""
    return {
        "prompt": turns(f"fox {index}?"),
        "chosen": [{"role": "assistant", "content": f"yes {index} " * repeats}],
        "rejected": [
            {"role": "assistant", "content": rejected or f"no {index} " * (index % 3 + 1)}
        ],
    }


def load(path: Path, rows: list[Any], tokenizer: str, **options: Any) -> Splits:
    return chat(write_jsonl(path / "rows.jsonl", rows), tokenizer, preferences=True, **options)


def texts(samples: Any, row: int, prefix: str) -> str:
    batch = samples.__getitems__([row])
    return str(samples.text_of(batch[f"{prefix}label"][batch[f"{prefix}valid"]].tolist()))


def test_every_row_has_both_texts(tmp_path: Path, tokenizer: str) -> None:
    splits = load(tmp_path, [pair(index) for index in range(40)], tokenizer)
    seen = []
    for samples in (splits.train, splits.validation, splits.test):
        assert isinstance(samples, RaggedPairs)
        for row in range(len(samples)):
            index = int(texts(samples, row, "").split()[1])
            seen.append(index)
            assert texts(samples, row, "").split() == ["yes", str(index)]
            assert texts(samples, row, "rejected_").split() == ["no", str(index)] * (index % 3 + 1)
    assert sorted(seen) == list(range(40))
    assert (len(splits.validation), len(splits.test)) == (4, 4)


def test_parts_and_unlabelled_rows(tmp_path: Path, tokenizer: str) -> None:
    samples = load(tmp_path, [pair(index) for index in range(40)], tokenizer).train
    part = samples.subset(torch.tensor([5, 2]))
    for row, whole in enumerate((5, 2)):
        for prefix in ("", "rejected_"):
            assert texts(part, row, prefix) == texts(samples, whole, prefix)
    batch = part.__getitems__([0, 1])
    inputs = part.inputs(torch.tensor([0, 1]))
    assert batch.keys() - inputs.keys() == {"label", "index", "view"}
    assert torch.equal(inputs["rejected_input_ids"], batch["rejected_input_ids"])
    assert part.content() != samples.content()


def test_pairs_that_show_nothing_are_left_out(tmp_path: Path, tokenizer: str) -> None:
    rows = [pair(index) for index in range(20)]
    rows[3] = pair(3, rejected="yes 3 ")
    rows[5] = pair(5, rejected=" ")
    train = load(tmp_path, rows, tokenizer).train
    assert any("1 of 20 rows have a rejected answer that equals" in note for note in train.notes)
    assert any("1 of 20 rows have an empty answer" in note for note in train.notes)
    rejected = [texts(train, row, "rejected_").split()[0] for row in range(len(train))]
    assert set(rejected) == {"no"}


@pytest.mark.parametrize("truncation", ["drop", "right", "left"])
def test_long_pairs(tmp_path: Path, tokenizer: str, truncation: str) -> None:
    rows = [pair(index, 9 if index % 2 else 1) for index in range(10, 30)]
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [pair(10)])
    files = {"train": write_jsonl(tmp_path / "train.jsonl", rows)}
    files |= {"validation": held_out, "test": held_out}
    train = chat(files, tokenizer, preferences=True, length=60, truncation=truncation).train
    assert len(train) == (10 if truncation == "drop" else 20)
    for row in range(len(train)):
        both = [texts(train, row, prefix).split() for prefix in ("", "rejected_")]
        assert set(both[0]) & set(both[1]), "the number of the row"
    with pytest.raises(ValueError, match=r"^length: 10 of 20 texts are longer"):
        chat(files, tokenizer, preferences=True, length=60)


def test_options_that_pairs_do_not_support(tmp_path: Path, tokenizer: str) -> None:
    rows = [pair(index) for index in range(20)]
    for options in ({"packing": True}, {"truncation": "split"}):
        with pytest.raises(ValueError, match=r"^preferences: rows of pairs support no"):
            load(tmp_path, rows, tokenizer, **options)
    with pytest.raises(ValueError, match=r"line 1: no rejected answer"):
        load(tmp_path, [{"text": "quick"}] * 20, tokenizer)


def test_the_vocabulary_has_the_tokens_of_both_texts(tmp_path: Path, tokenizer: str) -> None:
    train = load(tmp_path, [pair(index) for index in range(20)], tokenizer, prune=True).train
    assert texts(train, 0, "rejected_").startswith("no ")
