"""Estimators of scikit-learn as models: logits, state and wrong inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.export.student import load_student, save_student
from instil.networks.factory import build
from instil.networks.sklearn_model import SklearnModel

pytest.importorskip("skops")
INPUTS = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
SINGLE = (INPUTS[:, 0] * 3).long()


def fitted(label: Tensor, name: str = "RandomForestClassifier", classes: int = 3) -> SklearnModel:
    options: dict[str, Any] = {"n_estimators": 5}
    model: Any = build(f"sklearn:{name}", options, classes=classes)
    model.fit(INPUTS, label)
    return model  # type: ignore[no-any-return]


def test_softmax_of_the_logits_is_the_probability() -> None:
    model = fitted(SINGLE)
    expected = model.estimator.predict_proba(INPUTS.numpy())
    assert torch.allclose(model(INPUTS).softmax(1), torch.from_numpy(expected).float(), atol=1e-5)
    assert model(INPUTS).isfinite().all()


def test_a_class_without_samples_has_the_smallest_probability() -> None:
    model = fitted(SINGLE.clamp(max=1) * 2, classes=4)
    logits = model(INPUTS)
    assert logits.shape == (40, 4)
    assert (logits[:, [1, 3]].softmax(1) == 0.5).all()
    assert set(logits.argmax(1).tolist()) == {0, 2}


def test_unlabelled_rows_are_left_out() -> None:
    options = {"n_estimators": 5, "random_state": 3}
    label = SINGLE.clone()
    label[:10] = -100
    model: Any = build("sklearn:RandomForestClassifier", options, classes=3)
    model.fit(INPUTS, label)
    other: Any = build("sklearn:RandomForestClassifier", options, classes=3)
    other.fit(INPUTS[10:], SINGLE[10:])
    assert torch.equal(model(INPUTS), other(INPUTS))
    with pytest.raises(ValueError, match="no sample has one"):
        other.fit(INPUTS, torch.full((40,), -100))


@pytest.mark.parametrize("classes", [1, 2])
def test_sigmoid_of_independent_labels_is_the_probability(classes: int) -> None:
    label = (INPUTS[:, :classes] > 0.5).float()
    model = fitted(label, classes=classes)
    probabilities = model.estimator.predict_proba(INPUTS.numpy())
    first = probabilities[0] if classes == 2 else probabilities
    assert model(INPUTS).shape == (40, classes)
    assert np.allclose(model(INPUTS)[:, 0].sigmoid(), first[:, 1], atol=1e-5)


def test_a_regressor_returns_numbers() -> None:
    model = fitted(INPUTS[:, :2] * 10, "RandomForestRegressor", classes=2)
    expected = model.estimator.predict(INPUTS.numpy())
    assert np.allclose(model(INPUTS), expected, atol=1e-5)


def test_a_file_holds_the_whole_estimator(tmp_path: Any) -> None:
    model = fitted(SINGLE)
    save_student(model, tmp_path / "teacher.safetensors")
    other: Any = build("sklearn:RandomForestClassifier", {"n_estimators": 5}, classes=3)
    assert not torch.equal(other(INPUTS), model(INPUTS))
    load_student(other, tmp_path / "teacher.safetensors")
    assert torch.equal(other(INPUTS), model(INPUTS))


def test_a_foreign_type_in_a_file_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from skops import io

    model = fitted(SINGLE)
    model.resize_state({"serialized": model.serialized})
    monkeypatch.setattr(io, "get_untrusted_types", lambda data: ["os.system"])
    model.serialized = model.serialized + 1
    with pytest.raises(ValueError, match=r"contains os.system. Expected types of sklearn"):
        model(INPUTS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "RandomForestClasifier",
            {},
            "no classifier or regressor .*Did you mean RandomForestClassif",
        ),
        ("RandomForestClassifier", {"trees": 3}, "^options.trees: unknown option"),
        ("LinearSVC", {}, "gives no probabilities. Expected a classifier with predict_proba"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(f"sklearn:{name}", options, classes=3)


def test_other_inputs_than_one_table_are_refused() -> None:
    model = fitted(SINGLE)
    with pytest.raises(ValueError, match=r"one tensor of numbers per sample.*got input_ids"):
        model(input_ids=torch.ones(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("library", "name", "options"),
    [
        ("lightgbm", "LGBMClassifier", {"min_child_samples": 2, "verbose": -1}),
        ("xgboost", "XGBClassifier", {"max_depth": 2}),
    ],
)
def test_estimators_of_other_libraries_are_stored_and_restored(
    library: str, name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(library)
    options = options | {"n_estimators": 5}
    spec = f"sklearn:{library}.{name}"
    model: Any = build(spec, options, classes=2)
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    label = (rows[:, 0] > 0).long()
    model.fit(rows, label)
    assert (model(rows).argmax(1) == label).float().mean() > 0.9
    assert model.estimator.random_state == torch.initial_seed() % 2**31
    other: Any = build(spec, options, classes=2)
    other.resize_state(model.state_dict())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(rows), model(rows))
    with pytest.raises(ValueError, match=f"Did you mean {name}"):
        build(spec.replace("Classifier", "Clasifier"), classes=2)


def test_an_unknown_library_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown library 'catboost'\. Expected one of lightgbm"):
        build("sklearn:catboost.CatBoostClassifier", classes=2)


@pytest.mark.parametrize(
    ("spec", "option", "closest"),
    [
        ("lightgbm.LGBMClassifier", "num_leavs", "num_leaves"),
        ("xgboost.XGBClassifier", "max_dept", "max_depth"),
    ],
)
def test_an_option_that_the_library_would_ignore_is_an_error(
    spec: str, option: str, closest: str
) -> None:
    pytest.importorskip(spec.partition(".")[0])
    message = rf"^options\.{option}: unknown option\. .* Did you mean {closest}\?$"
    with pytest.raises(ValueError, match=message):
        build(f"sklearn:{spec}", {option: 3}, classes=2)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("lightgbm.LGBMClassifier", {"num_leaf": 3, "bagging_fraction": 0.5}),
        ("xgboost.XGBClassifier", {"eta": 0.1, "lambda": 2.0, "seed": 3, "nthread": 1}),
        ("xgboost.XGBRegressor", {"booster": "dart", "rate_drop": 0.1}),
        ("xgboost.XGBRegressor", {"objective": "reg:tweedie", "tweedie_variance_power": 1.2}),
    ],
)
def test_further_options_of_a_library_are_accepted(spec: str, options: dict[str, Any]) -> None:
    pytest.importorskip(spec.partition(".")[0])
    assert build(f"sklearn:{spec}", options, classes=2) is not None
