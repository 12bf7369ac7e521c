"""Source of tables: files, labels, splits, synthetic rows and wrong data."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.sources.sklearn import sklearn
from instil.data.sources.table import table
from instil.data.table_labels import class_labels
from instil.data.tabular import RealTableData, TableData

ROWS = [
    {"age": 20 + i, "job": ["cook", "nurse"][i % 2], "y": ["no", "yes"][i // 20]} for i in range(40)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["age,job,y", *(f"{row['age']},{row['job']},{row['y']}" for row in ROWS)]
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "people.tsv").write_text("\n".join(lines).replace(",", "\t"))
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    columns = {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
    np.savez(tmp_path / "people.npz", **columns)
    return tmp_path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "npz", "parquet"])
def test_all_files_give_the_same_rows(folder: Path, ending: str) -> None:
    if ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "people.parquet")
    data = table(f"people.{ending}", "y", base=folder)
    expected = table("people.csv", "y", base=folder)
    assert data.classes == ("no", "yes")
    assert (len(data.train), len(data.validation), len(data.test)) == (29, 5, 6)
    for part, other in ((data.train, expected.train), (data.test, expected.test)):
        assert isinstance(part, TableData)
        assert isinstance(other, TableData)
        assert torch.equal(part.tensors["features"], other.tensors["features"])
        assert torch.equal(part.label, other.label)
        assert torch.equal(part.origin, other.origin)
    assert (data.train.facts["classes"], data.train.facts["features"]) == (2, 3)


def test_statistics_do_not_depend_on_held_out_rows(folder: Path) -> None:
    data = table({"train": "people.csv", "test": "people.jsonl"}, "y", base=folder)
    assert isinstance(data.train, TableData)
    ages = data.train.tensors["features"][:, 0]
    assert ages.mean().item() == pytest.approx(0, abs=1e-5)
    assert ages.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_synthetic_rows_have_no_label_and_are_training_rows_only(folder: Path) -> None:
    plain = table("people.csv", "y", base=folder)
    data = table("people.csv", "y", munge=2, base=folder)
    count = len(plain.train)
    assert len(data.train) == 3 * count
    assert torch.equal(data.train.label[:count], plain.train.label)
    assert (data.train.label[count:] == -100).all()
    assert len(set(data.train.index.tolist())) == 3 * count
    assert len(data.test) == len(plain.test)


def test_labels_of_a_regression_are_standardized(folder: Path) -> None:
    data = table("people.csv", "age", base=folder, task_name="tabular_regression")
    assert isinstance(data.train, RealTableData)
    assert data.kind == "real"
    restored = data.train.label * data.train.label_std + data.train.label_mean
    torch.testing.assert_close(restored[:, 0], 20.0 + data.train.origin)


def test_several_columns_are_several_classes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "x,a,b\n" + "".join(f"{i},{i % 2},{i % 3 == 0:d}\n" for i in range(30))
    )
    data = table("t.csv", ["a", "b"], base=tmp_path)
    assert (data.kind, data.classes) == ("multi", ("a", "b"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "z"}, r"label: .*people\.csv has no column 'z'\. It has age, job, y\.$"),
        ({"label": "y", "drop": ["ag"]}, r"drop: no column 'ag'.*Did you mean age\?"),
        ({"label": "y", "drop": ["age", "job"]}, r"columns: no input is left"),
        ({"label": "y", "classes": ["no", "yeah"]}, r"row 20 has the unknown class 'yes'"),
        ({"label": "y", "files": "people.txt"}, r"no 'people.txt' in"),
        ({"label": "y", "task_name": "tabular_regression"}, r"row 0 of column 'y' is 'no'"),
    ],
)
def test_wrong_options_are_errors(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(**({"files": "people.csv", "base": folder} | options))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("age,y\n30,no\n", r"files\.test: no column 'job'\. Expected the columns of the training"),
        ("age,job\n30,cook\n", r"label: .*new\.csv has no column 'y'\. It has age, job"),
        ("age,job,y\nold,cook,no\n", r"files\.test: column 'age' has texts\. Expected numbers"),
        ("age,job,y\n30,7,no\n", r"files\.test: column 'job' has numbers\. Expected texts"),
        ("age,job,y\ninf,cook,no\n", r"column 'age': row 0 is infinite"),
    ],
)
def test_rows_that_differ_from_training_are_errors(folder: Path, lines: str, message: str) -> None:
    (folder / "new.csv").write_text(lines)
    with pytest.raises(ValueError, match=message):
        table({"train": "people.csv", "test": "new.csv"}, "y", base=folder)


def test_unknown_categories_and_missing_numbers_are_noted(folder: Path) -> None:
    (folder / "new.csv").write_text("age,job,y\nNaN,pilot,no\n30,,yes\n")
    data = table({"train": "people.csv", "test": "new.csv"}, "y", base=folder)
    assert isinstance(data.test, TableData)
    assert data.test.tensors["features"][0].tolist() == [0, 0, 0]
    assert [note.partition(";")[0] for note in data.notes] == [
        "column 'age' of test: 1 missing values, unlike in training",
        "column 'job' of test: 2 values of unknown categories",
    ]


def test_a_column_of_numbers_with_a_text_is_noted(folder: Path) -> None:
    lines = [f"{i if i != 3 else 'n.a.'},{i % 2}" for i in range(12)]
    (folder / "mixed.csv").write_text("\n".join(["age,y", *lines]) + "\n")
    files = {"train": "mixed.csv", "test": "mixed.csv"}
    notes = table(files, "y", base=folder, validation=0.25).notes
    assert notes[0].startswith(
        "column 'age' of train: 1 of 9 values are not numeric, such as 'n.a.'"
    )
    plain = table(files, "y", base=folder, validation=0.25, categorical=["age"]).notes
    assert not any("not numeric" in note for note in plain)


def test_dates_are_categories(folder: Path) -> None:
    days = [datetime.date(2020, 1, 1 + i % 2) for i in range(12)]
    classes = [str(i % 2) for i in range(12)]
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"day": days, "y": classes}), folder / "days.parquet")
    data = table("days.parquet", "y", base=folder, categorical=["day"])
    assert isinstance(data.train, TableData)
    assert data.train.tensors["features"].shape[1] == 2
    assert data.notes == ()


def test_damaged_files_are_errors(folder: Path) -> None:
    (folder / "nothing.csv").write_text("")
    with pytest.raises(ValueError, match=r"nothing\.csv is empty\. Expected a header"):
        table("nothing.csv", "b", base=folder)
    (folder / "short.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match=r"row 1 has 1 values\. Expected 2, as in the header"):
        table("short.csv", "b", base=folder)
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="the column 'a' exists twice"):
        table("twice.csv", "a", base=folder)
    (folder / "real.csv").write_text("a,b\n1,0.5\n")
    with pytest.raises(ValueError, match=r"row 0 is 0\.5\. Expected a class"):
        table("real.csv", "b", base=folder)
    (folder / "inf.csv").write_text("a,b\n1,0.5\n2,inf\n")
    with pytest.raises(ValueError, match=r"row 1 of column 'b' is inf\. Expected a finite number"):
        table("inf.csv", "b", base=folder, task_name="tabular_regression")
    with pytest.raises(ValueError, match=r"row 0 is inf\. Expected a class"):
        class_labels([float("inf")], None)
    (folder / "people.xls").write_text("")
    with pytest.raises(ValueError, match=r"people\.xls has an unknown ending"):
        table("people.xls", "b", base=folder)


def test_tables_of_scikit_learn() -> None:
    data = sklearn("breast_cancer", munge=1)
    assert data.classes == ("malignant", "benign")
    assert data.train.facts["features"] == 30
    numbers = sklearn("linnerud", task_name="tabular_regression")
    assert numbers.classes == ("Weight", "Waist", "Pulse")
    with pytest.raises(ValueError, match=r"Expected one of .*Did you mean breast_cancer\?"):
        sklearn("breast_cancr")
    with pytest.raises(ValueError, match="Use task: tabular_regression"):
        sklearn("diabetes", task_name="tabular_classification")


def test_names_with_underscores_are_no_numbers_and_none_is_a_class(tmp_path: Path) -> None:
    lines = ["code,y", *(f"{i % 2}_{i % 3},{['None', 'Mild'][i % 2]}" for i in range(40))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    data = table("a.csv", "y", base=tmp_path)
    assert data.classes == ("Mild", "None")
    assert data.train.has_label.all()
    assert data.train.facts["features"] == 6
