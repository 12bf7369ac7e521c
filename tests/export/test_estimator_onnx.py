"""ONNX files of estimators, and files that read raw columns."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.data.raw_rows import RawRows
from instil.data.table_encoder import TableEncoder
from instil.export.onnx import to_onnx
from instil.export.raw_rows_onnx import raw_inputs, write_raw_rows
from instil.export.session import Session
from instil.networks.factory import build
from instil.tasks.bases.table_rows import call

pytest.importorskip("skops")
pytest.importorskip("onnxruntime")
ROWS = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
LABEL = (ROWS[:, 0] * 3).long()
CLASSIFIERS = ("RandomForestClassifier", "GradientBoostingClassifier", "LogisticRegression")
OTHERS = {
    "lightgbm.LGBMClassifier": {"n_estimators": 3, "verbose": -1},
    "xgboost.XGBClassifier": {"n_estimators": 3},
}


def fitted(name: str, options: dict[str, Any], classes: int = 3) -> Any:
    model: Any = build(f"sklearn:{name}", options, classes=classes)
    model.fit(ROWS, LABEL)
    return model


def exported(model: nn.Module, path: Path, rows: torch.Tensor = ROWS) -> Session:
    """Export a model, which compares it with the file; return the file."""
    to_onnx(Net(model, call), {"features": rows}, path, ("features",))
    return Session(path)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_file_has_the_logits_of_a_classifier(name: str, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    options = {"n_estimators": 3} if name != "LogisticRegression" else {}
    model = fitted(name, options)
    session = exported(model, tmp_path / "student.onnx")
    torch.testing.assert_close(
        session({"features": ROWS})["logits"], model(ROWS), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_a_boosted_model(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name.partition(".")[0])
    pytest.importorskip("onnxmltools")
    model = fitted(name, OTHERS[name])
    session = exported(model, tmp_path / "student.onnx")
    torch.testing.assert_close(
        session({"features": ROWS})["logits"], model(ROWS), rtol=1e-4, atol=1e-4
    )


def test_a_class_without_rows_is_unlikely_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    model: Any = build("sklearn:RandomForestClassifier", {"n_estimators": 3}, classes=4)
    model.fit(ROWS, LABEL.clamp(max=1) * 2)
    logits = exported(model, tmp_path / "student.onnx")({"features": ROWS})["logits"]
    assert logits.shape == (60, 4)
    torch.testing.assert_close(logits, model(ROWS), rtol=1e-4, atol=1e-4)


def test_a_regressor_and_wrong_models(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    model: Any = build("sklearn:RandomForestRegressor", {"n_estimators": 3}, classes=2)
    model.fit(ROWS, ROWS[:, :2])
    assert exported(model, tmp_path / "student.onnx")({"features": ROWS})["logits"].shape == (60, 2)
    untrained: Any = build("sklearn:RandomForestRegressor", {}, classes=2)
    with pytest.raises(ValueError, match="is not fitted"):
        exported(untrained, tmp_path / "untrained.onnx")
    unknown: Any = build("sklearn:RandomForestRegressor", {}, classes=2)
    unknown.estimator = type("Unknown", (), {"__module__": "sklearn.unknown"})()
    unknown.is_fitted = True
    with pytest.raises(ValueError, match="Unknown cannot be converted"):
        exported(unknown, tmp_path / "unknown.onnx")
    assert not (tmp_path / "unknown.onnx").exists()


TABLE: dict[str, list[Any]] = {
    "age (years)": [20.0, 31.0, None, 58.0, 44.0, 29.0],
    "year": [1.6e9, 1.7e9, 1.5e9, 1.6e9, 1.7e9, 1.8e9],
    "trade": ["dyer", "weaver", "dyer", "", "smith", "dyer"],
    "town": ["a", "b", "a", "b", "a", "b"],
}
NEW_ROWS: dict[str, list[Any]] = {
    "age (years)": [None, 21.5, 70.0],
    "year": [1.7e9, None, 1.6e9 + 1],
    "trade": ["dyer", "cooper", None],
    "town": ["c", "b", None],
}


def raw_rows(min_count: int = 1) -> RawRows:
    encoder = TableEncoder(TABLE, min_count=min_count)
    return RawRows(encoder, torch.tensor([3.0]), torch.tensor([2.0]))


@pytest.mark.parametrize("min_count", [1, 2])
def test_a_forest_reads_raw_columns(min_count: int, tmp_path: Path) -> None:
    """With ``min_count`` 2 rare, unknown and missing trades are the category ``other``."""
    pytest.importorskip("skl2onnx")
    rows = raw_rows(min_count)
    features = rows.encoder.encode(TABLE)
    model: Any = build("sklearn:ExtraTreesClassifier", {"n_estimators": 4}, classes=2)
    model.fit(features, torch.tensor([0, 1, 0, 1, 0, 1]))
    exported(model, tmp_path / "student.onnx", features)
    path = tmp_path / "student.raw.onnx"
    facts = write_raw_rows(tmp_path / "student.onnx", rows, "single", path, {"task": "x"})
    assert facts["max_difference"] < 1e-5
    session = Session(path, ["probabilities"]).session
    kinds = {value.name: value.type for value in session.get_inputs()}
    assert kinds == {
        "age (years)": "tensor(double)",
        "year": "tensor(double)",
        "trade": "tensor(string)",
        "town": "tensor(string)",
    }
    (probabilities,) = session.run(None, raw_inputs(rows, NEW_ROWS))
    expected = model(rows.encoder.encode(NEW_ROWS)).softmax(1).numpy()
    assert probabilities == pytest.approx(expected, abs=1e-5)


def test_a_network_reads_raw_columns_and_returns_numbers_in_their_unit(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    rows = raw_rows()
    features = rows.encoder.encode(TABLE)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(rows.encoder.width, 4), nn.ReLU(), nn.Linear(4, 1))
    exported(model, tmp_path / "student.onnx", features)
    path = tmp_path / "student.raw.onnx"
    write_raw_rows(tmp_path / "student.onnx", rows, "real", path, {})
    (values,) = Session(path, ["values"]).session.run(None, raw_inputs(rows, NEW_ROWS))
    with torch.no_grad():
        expected = rows.restore(model(rows.encoder.encode(NEW_ROWS)))
    assert values == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_file_that_differs_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    rows = raw_rows()
    features = rows.encoder.encode(TABLE)
    model: Any = build("sklearn:ExtraTreesRegressor", {"n_estimators": 2}, classes=1)
    model.fit(features, torch.arange(6.0)[:, None])
    exported(model, tmp_path / "student.onnx", features)
    write = functools.partial(write_raw_rows, tmp_path / "student.onnx")
    rows.restore = lambda values: values  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="outputs for raw columns differ"):
        write(rows, "real", tmp_path / "student.raw.onnx", {})
    assert not (tmp_path / "student.raw.onnx").exists()
