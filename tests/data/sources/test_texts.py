"""Source ``texts``: files, pairs, padding, classes and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instil.data.sources.texts import texts
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.recipe import build
from tests.data.small_tokenizer import folder_of


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.fixture
def mails(tmp_path: Path) -> Path:
    rows: list[dict[str, object]] = [
        {"body": f"win prize {i}" if i % 2 else f"see you {i}", "kind": "spam" if i % 2 else "ham"}
        for i in range(40)
    ]
    write_rows(tmp_path / "mails.jsonl", rows)
    return tmp_path


def test_a_text_ends_with_the_end_token_and_padding(mails: Path) -> None:
    data = texts("mails.jsonl", text="body", label="kind", tokenizer="bytes", length=16, base=mails)
    assert data.classes == ("ham", "spam")
    batch = data.train.__getitems__([0])
    ids, mask = batch["input_ids"][0].tolist(), batch["attention_mask"][0].tolist()
    size = sum(mask)
    assert bytes(ids[: size - 1]).decode() in {f"win prize {i}" for i in range(40)} | {
        f"see you {i}" for i in range(40)
    }
    assert ids[size - 1 :] == [256] * (17 - size)
    assert mask == [1] * size + [0] * (16 - size)


def test_a_csv_file_without_a_label_in_some_rows(tmp_path: Path) -> None:
    lines = ["text,label", *(f'"a, {i}",{"x" if i % 2 else "y"}' for i in range(20)), "last one,"]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    data = texts("all.csv", tokenizer="bytes", length=8, base=tmp_path)
    labels = torch.cat([part.label for part in (data.train, data.validation, data.test)])
    assert sorted(labels.unique().tolist()) == [-100, 0, 1]


def test_a_class_that_only_test_texts_have_keeps_its_index(tmp_path: Path) -> None:
    for name, labels in (("train", "bc"), ("validation", "bc"), ("test", "abc")):
        rows: list[dict[str, object]] = [{"text": "t", "label": one} for one in labels]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    files: dict[str, str | list[str]] = {
        name: f"{name}.jsonl" for name in ("train", "validation", "test")
    }
    data = texts(files, tokenizer="bytes", length=4, base=tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.train.label.tolist() == [1, 2]
    assert data.test.label.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ab", "cd", "ab|cd|"),
        ("abcdefghij", "cd", "abcdef|cd|"),
        ("ab", "cdefghijkl", "ab|cdefgh|"),
        ("abcdefghij", "klmnopqrst", "abcd|klmn|"),
    ],
)
def test_a_pair_is_cut_to_the_row(tmp_path: Path, first: str, second: str, expected: str) -> None:
    write_rows(
        tmp_path / "all.jsonl", [{"a": first, "b": second, "label": i % 2} for i in range(20)]
    )
    data = texts("all.jsonl", text="a", pair="b", tokenizer="bytes", length=10, base=tmp_path)
    batch = data.train.__getitems__([0])
    tokens = batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist()
    assert "".join("|" if token == 256 else chr(token) for token in tokens) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": 3, "label": "a"}, "row 1: 'text' is 3. Expected a text"),
        ({"text": ["a"], "label": "a"}, "row 1: 'text' is ..a... Expected a text"),
    ],
)
def test_wrong_rows_are_errors(tmp_path: Path, row: dict[str, object], message: str) -> None:
    write_rows(tmp_path / "all.jsonl", [{"text": "a", "label": "a"}, row])
    with pytest.raises(ValueError, match=message):
        texts("all.jsonl", tokenizer="bytes", base=tmp_path)


def test_rows_without_a_text_are_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("text,label\n7,a\n ,a\nNA,b\n,b\n8,b\n")
    (tmp_path / "empty.csv").write_text("text,label\n,a\n")
    files: dict[str, str | list[str]] = dict.fromkeys(("train", "validation", "test"), "all.csv")
    data = texts(files, tokenizer="bytes", length=4, base=tmp_path)
    assert data.train.origin.tolist() == [0, 2, 4]
    assert data.train.label.tolist() == [0, 1, 1]
    ids = data.train.__getitems__(range(3))["input_ids"]
    assert ids[:, 0].tolist() == list(b"7N8"), "numbers and NA are texts here"
    assert data.notes[0].endswith(
        "all.csv: rows without a text are left out: 2 of 5, the first is row 1"
    )
    with pytest.raises(ValueError, match=r"empty.csv: no row has a text in text"):
        texts("empty.csv", tokenizer="bytes", base=tmp_path)


def test_a_missing_column_names_the_closest_one(mails: Path) -> None:
    with pytest.raises(ValueError, match=r"text: .* has no column 'text'. It has body, kind"):
        texts("mails.jsonl", label="kind", base=mails)
    with pytest.raises(ValueError, match=r"label: .* has no column 'kinds'.*kind"):
        texts("mails.jsonl", text="body", label="kinds", base=mails)


def test_a_recipe_reads_texts(mails: Path) -> None:
    recipe = build(
        {
            "task": "text_classification",
            "data": {
                "name": "texts",
                "files": str(mails / "mails.jsonl"),
                "text": "body",
                "label": "kind",
                "tokenizer": "bpe:280",
                "length": 12,
                "batch_size": 8,
            },
            "teacher": {"model": "text_transformer", "options": {"width": 8, "depth": 1}},
            "student": {"model": "text_transformer", "options": {"width": 4, "depth": 1}},
            "objectives": {"cross_entropy": {}, "kd": {}},
            "train": {"steps": 2},
        }
    )
    stages = list(dry_run(Experiment.from_recipe(recipe)))
    assert len(stages) == 1


def test_none_is_the_name_of_a_class_and_numbers_are_whole(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("text,label\n" + "a,None\nb,NA\nc,\n" * 20)
    data = texts("names.csv", tokenizer="bytes", length=8, base=tmp_path)
    assert data.classes == ("NA", "None")
    assert sum(int((part.label < 0).sum()) for part in (data.train, data.test)) == 20
    (tmp_path / "numbers.csv").write_text("text,label\n" + "a,1.0\nb,0\nc,nan\n" * 20)
    assert texts("numbers.csv", tokenizer="bytes", length=8, base=tmp_path).classes == ("0", "1")


def test_an_unknown_class_is_an_error_with_the_row_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,yes\nb,no\n" * 20)
    (tmp_path / "test.csv").write_text("text,label\na,yes\n ,no\nb,None\n")
    with pytest.raises(ValueError, match=r"test.csv: label: row 2 has the unknown class 'None'"):
        texts(
            {"train": "train.csv", "test": "test.csv"},
            classes=["yes", "no"],
            tokenizer="bytes",
            base=tmp_path,
        )


@pytest.mark.parametrize("pair", [None, "text"])
def test_texts_that_are_cut_are_counted(pair: str | None, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("text,label\n" + "1234567,yes\n123456789,no\n" * 20)
    length = 8 if pair is None else 16
    data = texts("all.csv", pair=pair, tokenizer="bytes", length=length, base=tmp_path)
    assert data.notes == (f"20 of 40 train texts are longer than {length} tokens and are cut",)
    assert (data.train.__getitems__([0, 1])["input_ids"][:, -1] == 256).all()


def test_pairs_have_the_separators_of_the_tokenizer(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "roberta", ["<s>", "</s>"])
    inner = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    processors = pytest.importorskip("tokenizers.processors")
    inner.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    inner.save(str(folder / "tokenizer.json"))
    (tmp_path / "all.csv").write_text("text,other,label\n" + "the fox,a dog,x\nthe,dog,y\n" * 9)
    for pair in (None, "other"):
        data = texts("all.csv", pair=pair, tokenizer=str(folder), length=32, base=tmp_path).train
        batch = data.__getitems__([0])
        rows = ["the fox", "a dog"] if data.origin[0] % 2 == 0 else ["the", "dog"]
        expected = inner.encode(*rows[: 1 if pair is None else 2]).ids
        size = int(batch["attention_mask"].sum())
        assert batch["input_ids"][0, :size].tolist() == expected


def test_equal_texts_are_in_one_split(tmp_path: Path) -> None:
    rows = [{"text": f"mail {i // 4}", "label": str(i % 2)} for i in range(80)]
    write_rows(tmp_path / "a.jsonl", rows)
    data = texts(str(tmp_path / "a.jsonl"), tokenizer="bytes")
    parts = (data.train, data.validation, data.test)
    mails = [{row // 4 for row in part.origin.tolist()} for part in parts]
    assert sum(map(len, mails)) == len(set().union(*mails)) == 20
