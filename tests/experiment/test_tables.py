"""Tables in recipes: an estimator teaches a network, a soft tree, regression, wrong data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import instil
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from tests.experiment.small import recipe, run_of

pytest.importorskip("skops")
RECIPE: dict[str, Any] = {
    "task": "tabular_classification",
    "data": {"name": "sklearn:iris", "num_labeled": 12, "munge": 1, "batch_size": 32},
    "teacher": {"model": "sklearn:ExtraTreesClassifier", "options": {"n_estimators": 30}},
    "student": {"model": "mlp", "options": {"width": 16}},
    "objectives": {"kd": {}},
    "train": {"epochs": 15, "optimizer": {"lr": 5e-2}},
    "seeds": [0],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw_columns(samples: Any, features: torch.Tensor) -> dict[str, list[float]]:
    """Columns of a table of numbers, before the encoding."""
    columns = {}
    for feature in samples.encoder.features:
        values = features[:, feature.start].double() * feature.std + feature.mean
        columns[feature.name] = values.tolist()
    return columns


def test_a_forest_teaches_a_network_of_table_rows(folder: Path) -> None:
    rows = recipe("export=true", **RECIPE)
    assert doctor(rows)["problems"] == []
    result = run_of(rows, folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.8
    assert {"alone", "label_smoothing", "pseudo_labels"} <= set(result)
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]
    student = instil.load(folder / "run")
    test = Experiment.from_recipe(student.recipe).splits.test
    features = test.inputs(torch.arange(4))["features"]
    assert student(features).shape == (4, 3)
    columns = raw_columns(test, features)
    torch.testing.assert_close(student(columns), student(features), rtol=1e-3, atol=1e-4)
    assert student.predict(columns) == student.predict(features)
    with pytest.raises(ValueError, match="no column 'petal width"):
        student({name: columns[name] for name in list(columns)[:3]})


def test_a_soft_tree_has_its_penalty_as_own_loss(folder: Path) -> None:
    sections = RECIPE | {
        "student": {"model": "soft_tree", "options": {"depth": 2}},
        "objectives": {"kd": {}, "own_loss": {"weight": 0.1}},
    }
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.5


def test_a_forest_teaches_a_regressor(folder: Path) -> None:
    sections = RECIPE | {
        "task": "tabular_regression",
        "data": {"name": "sklearn:diabetes", "num_labeled": 40, "batch_size": 64},
        "teacher": {"model": "sklearn:ExtraTreesRegressor", "options": {"n_estimators": 30}},
        "objectives": {"logit_mse": {}},
    }
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["r2"]["mean"] > 0.2
    student = instil.load(folder / "run")
    test = Experiment.from_recipe(student.recipe).splits.test
    features = test.inputs(torch.arange(4))["features"]
    expected = student(features) * test.label_std + test.label_mean  # type: ignore[attr-defined]
    columns = raw_columns(test, features)
    torch.testing.assert_close(student(columns), expected, rtol=1e-3, atol=1e-2)
    assert 20 < student.predict(columns)[0]["label"] < 350


def test_wrong_tables_are_errors_before_training(folder: Path) -> None:
    (folder / "t.csv").write_text("a,y\n" + "1,x\n2,z\n" * 20)
    wrong = RECIPE | {"data": {"name": "table:t.csv", "label": "why"}}
    with pytest.raises(RecipeError, match=r"data.label: t\.csv has no column 'why'\. It has a, y"):
        Experiment.from_recipe(recipe(**wrong))
    (folder / "s.csv").write_text("a;y\n" + "1;x\n2;z\n" * 20)
    wrong = RECIPE | {"data": {"name": "table:s.csv", "label": "y"}}
    with pytest.raises(
        RecipeError, match=r"data.label: s\.csv has no commas between the columns 'a;y'"
    ):
        Experiment.from_recipe(recipe(**wrong))
    images = RECIPE | {"data": {"name": "digits"}}
    with pytest.raises(RecipeError, match=r"task: .* needs 'features' in a batch"):
        Experiment.from_recipe(recipe(**images))
