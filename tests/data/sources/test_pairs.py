"""Sources of pairs: files, splits, limits, CMUdict, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.data.column_samples import column_samples
from instil.data.sequence_pairs import SequencePairs
from instil.data.sources.cmudict import cmudict
from instil.data.sources.npz import npz
from instil.data.sources.pairs import pairs


def texts(data: Any) -> list[tuple[str, str]]:
    """Source and target of each sample."""
    assert isinstance(data, SequencePairs)
    tokenizer: Any = data.tokenizer
    batch = data.__getitems__(range(len(data)))
    result = []
    for source, target in zip(batch["input_ids"].tolist(), batch["label"].tolist(), strict=True):
        letters = [tokenizer.symbols[token] for token in source if token > 1]
        result.append(("".join(letters), data.text_of([token for token in target if token > 1])))
    return result


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f"{chr(97 + i)}x{i}\tno\tT{i} U" for i in range(20)]
    (tmp_path / "all.tsv").write_text("\n".join(["source\tother\ttarget", *lines]))
    return tmp_path


def test_a_tab_separated_file_is_split_by_its_sources(table: Path) -> None:
    data = pairs("all.tsv", target_tokenizer="words", base=table)
    parts = [texts(part) for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [14, 3, 3]
    assert len({source for part in parts for source, _ in part}) == 20
    assert ("ax0", "T0 U") in parts[0] + [
        # The symbols of held-out targets may be unknown.
        (source, "T0 U")
        for part in parts[1:]
        for source, _ in part
    ]
    assert data.kind == "sequence"
    fewer = pairs("all.tsv", target_tokenizer="words", rows=5, base=table)
    assert len(fewer.train) == 5
    assert set(texts(fewer.train)) <= set(parts[0])
    assert len(fewer.test) == 3


def test_json_lines_may_have_other_columns_and_no_targets(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [{"en": "a b", "de": "c"}, {"en": "a", "de": None if split == "train" else "b"}]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files: Any = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
    data = pairs(files, source="en", target="de", tokenizer="bytes", base=tmp_path)
    assert data.train.has_label.tolist() == [True, False]
    assert data.test.facts["vocabulary"] == 257


def test_long_pairs_are_left_out_with_a_note(table: Path) -> None:
    data = pairs("all.tsv", max_length=4, base=table)
    assert any("are longer than 4 tokens: left out" in note for note in data.notes)
    with pytest.raises(ValueError, match=r"max_length: all \d+ train pairs are longer than 1 tok"):
        pairs("all.tsv", max_length=1, base=table)


def test_wrong_files_are_errors(table: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'sorce'.*source"):
        pairs("all.tsv", source="sorce", base=table)
    (table / "short.tsv").write_text("source\ttarget\na\tb\nc\n")
    with pytest.raises(ValueError, match=r"line 3: 1 columns\. Expected 2"):
        pairs("short.tsv", base=table)
    (table / "empty.tsv").write_text("source\ttarget\na\tb\n\tc\n")
    with pytest.raises(ValueError, match="pair 1 has no text in column 'source'"):
        pairs("empty.tsv", base=table)
    (table / "list.jsonl").write_text('{"source": "a", "target": [1]}\n')
    with pytest.raises(ValueError, match="Expected a text, got list"):
        pairs("list.jsonl", base=table)


def test_the_packaged_dictionary_has_letters_and_phonemes() -> None:
    data = cmudict(rows=200)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [200, 1998, 1998]
    result = dict(texts(cmudict().train))
    assert len(result) > 15_000
    word = next(word for word in result if len(word) > 4)
    assert all(symbol.isalpha() for symbol in result[word].split())
    stressed = cmudict(stress=True)
    assert stressed.train.facts["vocabulary"] > data.train.facts["vocabulary"]


def test_a_whole_dictionary_is_read_from_a_file(tmp_path: Path) -> None:
    lines = ";;; comment\nABLE  EY1 B AH0 L\nABLE(1)  AH0\nA.  EY1\n" + "".join(
        f"{word.upper()} K AE1 T # a word\n" for word in ("cat", "kat", "cut", "kut", "cot", "kot")
    )
    (tmp_path / "dict.txt").write_text(lines * 2)
    data = cmudict("dict.txt", base=tmp_path)
    parts = [texts(part) for part in (data.train, data.validation, data.test)]
    result = dict(parts[0] + parts[1] + parts[2])
    assert len(result) == 7
    assert result.get("able", "EY B AH L") == "EY B AH L"
    (tmp_path / "wrong.txt").write_text("hello world this is text\n")
    with pytest.raises(ValueError, match="is not CMUdict"):
        cmudict("wrong.txt", base=tmp_path)


def test_columns_of_features_have_texts_or_symbols_as_targets(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(8, 4, 10)).astype(np.float32)
    texts = np.array(["ab", "ba", "b", "", "aab", "bb", "a", "ab"])
    np.savez(
        tmp_path / "speech.npz", mel=features, text=texts, split=np.array([0] * 4 + [1, 1, 2, 2])
    )
    columns = {"input_features": "mel", "label": "text"}
    data = npz("speech.npz", columns=columns, base=tmp_path, task_name="seq2seq").train
    assert isinstance(data, SequencePairs)
    assert data.facts == {
        "vocabulary": 5,
        "start": 0,
        "end": 1,
        "pad": 0,
        "inputs": "input_features",
        "channels": 4,
    }
    batch = data.__getitems__([0, 3])
    assert batch["input_features"].shape == (2, 4, 10)
    assert data.text_of(batch["label"][0, :2].tolist()) == "ab"
    assert batch["label_length"].tolist() == [3, 0]
    symbols = column_samples(
        {"pixel_values": features[:, :3, None], "label": [[4, 2], [2]] * 4}, task_name="seq2seq"
    )
    assert isinstance(symbols, SequencePairs)
    assert symbols.text_of([3, 4]) == "2 4"


def test_wrong_features_are_errors(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    damaged = features.copy()
    damaged[1, 2, 3] = np.inf
    cases = {
        "row 1 has NaN or infinite values": damaged,
        r"Expected floating-point numbers \(N, channels, T\), got torch\.int64": features.astype(
            int
        ),
        r"got torch\.float32 of shape \(3, 4\)": features[..., 0],
        r"got torch\.float32 of shape \(3, 4, 0\)": features[..., :0],
    }
    for message, mel in cases.items():
        np.savez(tmp_path / "a.npz", mel=mel, text=["a", "b", "ab"], split=[0, 1, 2])
        with pytest.raises(ValueError, match=message):
            npz(
                "a.npz",
                columns={"input_features": "mel", "label": "text"},
                base=tmp_path,
                task_name="seq2seq",
            )


@pytest.mark.parametrize("name", ["all.tsv", "all.csv", "all.parquet", "all.jsonl"])
def test_files_of_every_form_have_the_same_pairs(name: str, tmp_path: Path) -> None:
    rows = [(f"{chr(97 + i)}\u2028x", f"T{i}") for i in range(20)] + [("blank", " ")]
    path = tmp_path / name
    if name == "all.parquet":
        pyarrow = pytest.importorskip("pyarrow")
        columns = dict(zip(("source", "target"), map(list, zip(*rows, strict=True)), strict=True))
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    elif name == "all.jsonl":
        lines = [json.dumps(dict(zip(("source", "target"), row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
    else:
        separator = "\t" if name == "all.tsv" else ","
        lines = [separator.join(row) for row in [("source", "target"), *rows]]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
    data = pairs(name, validation=0.1, test=0.1, base=tmp_path)
    parts = [texts(part) for part in (data.train, data.validation, data.test)]
    assert {source for part in parts for source, _ in part} >= {"blank", "a\u2028x"}
    assert sum(target == "" for part in parts for _, target in part) == 1


def test_files_without_training_pairs_are_an_error(table: Path) -> None:
    with pytest.raises(ValueError, match="files: no train set, only test"):
        pairs({"test": "all.tsv"}, base=table)
    (table / "all.json").write_text("[]")
    with pytest.raises(ValueError, match=r"files: all.json has an unknown ending"):
        pairs("all.json", base=table)
