"""Students with their own fit: targets, runs, resume, loading and wrong recipes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import instil
from instil.core import Objectives
from instil.deployment.export import export
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import class_weights, real_targets
from instil.networks.sklearn_model import SklearnModel
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.labels.label_smoothing import LabelSmoothing
from instil.objectives.labels.mean_squared_error import MeanSquaredError
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.plan import fitting
from instil.plan.doctor import doctor
from instil.plan.overview import overview
from instil.recipe.errors import RecipeError
from instil.search import search
from instil.search.state import Settings
from tests.experiment.small import lines, numbers, recipe, run_of

pytest.importorskip("skops")
FOREST: dict[str, Any] = {
    "model": "sklearn:RandomForestClassifier",
    "options": {"n_estimators": 5, "max_depth": 4},
}
RECIPE: dict[str, Any] = {
    "task": "tabular_classification",
    "data": {"name": "sklearn:iris", "num_labeled": 9, "munge": 1, "batch_size": 32},
    "teacher": {"model": "sklearn:ExtraTreesClassifier", "options": {"n_estimators": 20}},
    "student": FOREST,
    "objectives": {"cross_entropy": {"weight": 0.3}, "kd": {"temperature": 1, "weight": 0.7}},
    "seeds": [0],
}
REGRESSION: dict[str, Any] = RECIPE | {
    "task": "tabular_regression",
    "data": {"name": "sklearn:diabetes", "num_labeled": 40, "munge": 1},
    "teacher": {"model": "sklearn:ExtraTreesRegressor", "options": {"n_estimators": 20}},
    "student": {"model": "sklearn:GradientBoostingRegressor", "options": {"n_estimators": 20}},
    "objectives": {"mean_squared_error": {"weight": 0.25}, "logit_mse": {"weight": 0.75}},
}
LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCH = {"label": torch.tensor([0, 1, 2, 3, -100, -100])}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(objectives: dict[str, Any], weights: dict[str, float]) -> Objectives:
    built = Objectives(objectives, weights)
    built.build({"logits": LOGITS}, {"logits": LOGITS})
    return built


@pytest.mark.parametrize("average", ["batch", "labelled"])
@pytest.mark.parametrize("class_weights_of", [None, [1.0, 2.0, 0.5, 3.0]])
def test_soft_targets_are_those_of_the_losses(average: Any, class_weights_of: Any) -> None:
    """The losses of two students differ as their cross-entropies with the targets do."""
    objectives = prepared(
        {
            "cross_entropy": CrossEntropy(average, class_weights_of),
            "label_smoothing": LabelSmoothing(0.2, average=average),
            "kd": KD(temperature=1),
        },
        {"cross_entropy": 0.3, "label_smoothing": 0.5, "kd": 2.0},
    )
    weights = class_weights(objectives, {"logits": LOGITS}, BATCH, 4)
    assert weights.sum() == pytest.approx(6)
    values = []
    for seed in (1, 2, 3):
        student = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)).double()
        losses = objectives({"logits": student}, {"logits": LOGITS}, BATCH).losses
        targets = -(weights * student.log_softmax(1)).sum()
        values.append((float(sum(losses.values())), float(targets)))
    (loss, target), *others = values
    ratios = [(loss - one) / (target - other) for one, other in others]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)


@pytest.mark.parametrize("others_only", [False, True])
def test_targets_at_a_temperature_and_of_smoothed_labels(others_only: bool) -> None:
    kd = prepared({"kd": KD(temperature=3)}, {})
    weights = class_weights(kd, {"logits": LOGITS}, BATCH, 4)
    torch.testing.assert_close(weights, (LOGITS / 3).softmax(1), rtol=1e-5, atol=1e-6)
    smoothing = prepared({"smooth": LabelSmoothing(0.2, others_only)}, {})
    weights = class_weights(smoothing, {}, BATCH, 4)
    assert weights[0].tolist() == pytest.approx(
        [0.8, *[0.2 / 3] * 3] if others_only else [0.85, 0.05, 0.05, 0.05]
    )
    assert not weights[4:].any(), "unlabelled rows have no target"


def test_unlikely_classes_are_left_out() -> None:
    logits = torch.tensor([[0.0, -20.0], [0.0, -5.0]])
    weights = class_weights(
        prepared({"kd": KD(temperature=1)}, {}),
        {"logits": logits},
        {"label": torch.tensor([0, 0])},
        2,
    )
    assert (weights > 0).tolist() == [[True, False], [True, True]]


def test_a_regression_target_is_the_mixture_of_label_and_teacher() -> None:
    label = torch.tensor([[1.0], [2.0], [-100.0], [float("nan")]])
    teacher = {"logits": torch.tensor([[3.0], [4.0], [5.0], [6.0]])}
    objectives = prepared(
        {"label": MeanSquaredError(), "teacher": LogitMSE()}, {"label": 0.25, "teacher": 0.75}
    )
    target, weight = real_targets(objectives, teacher, {"label": label})
    assert target.flatten().tolist() == pytest.approx([2.5, 3.5, 5.0, 6.0])
    assert weight.tolist() == pytest.approx([w / 0.875 for w in (1.0, 1.0, 0.75, 0.75)])
    partial = {"label": torch.tensor([[1.0, -100.0]])}
    with pytest.raises(ValueError, match="labels for some of its outputs only"):
        MeanSquaredError().real_targets({}, partial)


def test_a_fit_on_hard_labels_has_no_weights_and_on_soft_ones_has() -> None:
    from sklearn.ensemble import RandomForestClassifier

    rows = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    label = (rows[:, 0] * 3).long()
    options = {"n_estimators": 5, "random_state": 0}
    hard = SklearnModel(RandomForestClassifier(**options), 3)
    hard.fit_classes(rows, torch.nn.functional.one_hot(label, 3) * 0.5)
    plain = RandomForestClassifier(**options).fit(rows.numpy(), label.numpy())
    probabilities = hard(rows).softmax(1).numpy()
    assert np.allclose(probabilities, plain.predict_proba(rows.numpy()), atol=1e-5)
    soft = SklearnModel(RandomForestClassifier(**options, bootstrap=False, max_depth=1), 3)
    weight = torch.tensor([0.2, 0.3, 0.5]).expand(30, 3)
    soft.fit_classes(rows, weight)
    assert soft(rows).softmax(1).numpy() == pytest.approx(weight.numpy(), abs=1e-6)


def test_a_forest_learns_from_soft_targets(folder: Path) -> None:
    pytest.importorskip("skl2onnx")
    from skops import io

    forest = recipe("export=true", "baselines=[label_smoothing,pseudo_labels]", **RECIPE)
    result = run_of(forest, folder / "run")
    assert {"label_smoothing", "pseudo_labels", "distilled"} <= set(result)
    assert result["distilled"]["accuracy"]["mean"] > 0.8
    cost = result["cost"]["student"]
    assert cost["bytes"] > 1000
    assert cost["latency"]["median_ms"] > 0
    (record,) = [line for line in lines(folder / "run") if line["arm"] == "distilled"]
    assert record["rows"] == 218
    assert set(record["losses"]) == {"student/cross_entropy", "student/kd"}
    assert 0 < record["losses"]["student/kd"] < 1
    assert record["validation"]["accuracy"] > 0.5
    assert (folder / "run" / "report.html").exists()
    onnx = result["export"]["onnx"]
    assert onnx["accuracy"] == result["distilled"]["accuracy"]["mean"]
    assert onnx["latency"]["median_ms"] > 0
    assert result["export_raw"]["file"] == "student.raw.onnx"
    export(folder / "run", int8=True, trust_code=True)
    assert not (folder / "run" / "student.int8.onnx").exists(), "an estimator is not quantized"
    loaded = io.load(folder / "run" / "student.skops", trusted=["sklearn.tree._tree.Tree"])
    with pytest.raises(ValueError, match=r"has a sklearn.tree._tree.Tree, .*trust_code=True"):
        instil.load(folder / "run")
    student = instil.load(folder / "run", trust_code=True)
    test = Experiment.from_recipe(student.recipe).splits.test
    features = test.inputs(torch.arange(len(test)))["features"]
    accuracy = (student(features).argmax(1) == test.label).float().mean()
    assert float(accuracy) == pytest.approx(result["distilled"]["accuracy"]["mean"], abs=1e-6)
    assert student.predict(features[:2])[0] in student.classes
    expected = loaded.predict(features.numpy())
    assert [student.classes[index] for index in expected] == student.predict(features)


@pytest.mark.slow
def test_seeds_differ_and_a_run_is_the_same_again(folder: Path) -> None:
    forest = recipe("seeds=[0,1]", "baselines=[alone]", "data.num_labeled=null", **RECIPE)
    first = run_of(forest, folder / "first")
    assert first["distilled"]["loss"]["values"][0] != first["distilled"]["loss"]["values"][1]
    second = run_of(
        recipe("seeds=[0,1]", "baselines=[alone]", "data.num_labeled=null", "name=again", **RECIPE),
        folder / "second",
    )
    assert numbers(second) == numbers(first)


def test_a_stopped_fit_leaves_nothing_and_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest = recipe("baselines=[alone]", **RECIPE)
    whole = run_of(forest, folder / "whole")
    monkeypatch.setenv("INSTIL_CACHE", str(folder / "other_cache"))
    fit = fitting.fit_student

    def stop(scheme: Any, *arguments: Any) -> Any:
        if scheme.teacher is not None:
            raise RuntimeError("stopped")
        return fit(scheme, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_student", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            run_of(forest, folder / "run")
    names = {path.name for path in (folder / "run" / "checkpoint").iterdir()}
    assert any(name.startswith("alone-0") for name in names)
    assert not any(name.startswith("distilled") for name in names)
    assert numbers(run_of(forest, folder / "run", resume=True)) == numbers(whole)


def test_a_boosted_regressor_learns_from_mixed_targets(folder: Path) -> None:
    result = run_of(recipe(**REGRESSION), folder / "run")
    assert result["distilled"]["r2"]["mean"] > result["alone"]["r2"]["mean"]
    assert result["distilled"]["agreement"]["mean"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("library", ["lightgbm.LGBMClassifier", "xgboost.XGBClassifier"])
def test_other_libraries(library: str, folder: Path) -> None:
    pytest.importorskip(library.partition(".")[0])
    options = {"n_estimators": 5}
    if library.startswith("lightgbm"):
        options["verbose"] = -1
    student = {"model": f"sklearn:{library}", "options": options}
    sections = RECIPE | {"student": student}
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.5
    assert instil.load(folder / "run", trust_code=True).net.model.is_fitted is False


def test_doctor_and_plan_time_fits(folder: Path) -> None:
    forest = recipe("baselines=[alone]", **RECIPE)
    findings = doctor(forest)
    assert findings["problems"] == []
    (stage,) = findings["stages"]
    assert stage["objectives"] == {}
    assert stage["forecast"]["note"].startswith("sklearn:RandomForestClassifier: the fit was timed")
    assert stage["forecast"]["seconds"] > 0
    assert findings["baselines"]["alone"] > 0
    seconds = [job["seconds"] for job in overview(forest)["jobs"] if job["name"].count("student")]
    assert len(seconds) == 2
    assert min(seconds) > 0


@pytest.mark.slow
def test_a_network_ensemble_teaches_a_tree_in_a_later_stage(folder: Path) -> None:
    sections = copy.deepcopy(RECIPE) | {
        "student": {"model": "mlp", "options": {"width": 8}},
        "train": {"epochs": 3, "optimizer": {"lr": 3e-2}},
        "baselines": ["alone"],
        "stages": [
            {"name": "network"},
            {"teacher": {"model": "previous"}, "student": FOREST},
        ],
    }
    result = run_of(recipe(**sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.5
    sections["stages"] = [{"student": FOREST}, {"student": {"model": "previous"}}]
    with pytest.raises(RecipeError, match="fit cannot be continued"):
        run_of(recipe(**sections), folder / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": {"dkd": {}}}, r"objectives.dkd: DKD needs gradients .* Expected kd, cross"),
        ({"scheme": "views"}, r"scheme: views .*Expected offline"),
        ({"balance": "gradient_norm"}, "balance: .*fixed weights"),
        (
            {"objectives": {"kd": {"weight": {"start": 0.0, "end": 1.0}}}},
            r"objectives.kd.weight: .*no schedule",
        ),
        ({"objectives": {"kd": {"weight": -1.0}}}, r"objectives.kd.weight: .*negative"),
        ({"objectives": {"kd": {"multi_label": True}}}, r"objectives.kd: multi_label"),
        (
            {"student": {"model": "sklearn:KNeighborsClassifier"}},
            r"student.model: KNeighborsClassifier takes no sample weights.* RandomForestClassifier",
        ),
        ({"student": {"model": "sklearn:RidgeClassifier"}}, "student: .*no probabilities"),
        ({"student": {"model": "sklearn:Ridge"}}, "student.model: .*does not predict classes"),
        (
            {"student": {"model": "sklearn:ensemble.RandomForestClassifier"}},
            r"student.*Write sklearn:RandomForestClassifier",
        ),
        (
            {"student": FOREST | {"options": {"n_estimators": -1}}},
            "student: RandomForestClassifier cannot be fitted: .*n_estimators",
        ),
        ({"student": FOREST | {"freeze": ["0"]}}, "has no weights; leave freeze out"),
        ({"student": {"model": "predictions:x.npz"}}, "predictions:x.npz cannot be trained"),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(**(RECIPE | changes)), folder / "run")
    assert not (folder / "run").exists()


def test_a_classifier_of_numbers_and_other_tasks_are_refused(folder: Path) -> None:
    numbers_recipe = recipe(**(REGRESSION | {"student": FOREST}))
    with pytest.raises(RecipeError, match=r"student.model: .*does not predict numbers"):
        run_of(numbers_recipe, folder / "run")
    wrong_teacher = recipe(**(REGRESSION | {"teacher": FOREST}))
    with pytest.raises(RecipeError, match=r"teacher: .*does not predict numbers. Expected a regr"):
        run_of(wrong_teacher, folder / "run")
    images = recipe(student=FOREST)
    with pytest.raises(RecipeError, match="student of table rows only"):
        run_of(images, folder / "images")


def test_a_scheme_has_no_estimator_as_a_further_network(folder: Path) -> None:
    sections = RECIPE | {
        "student": {"model": "mlp", "options": {"width": 8}},
        "teacher": None,
        "objectives": {"cross_entropy": {}, "kd": {}},
        "scheme": {"type": "mutual", "peers": [FOREST]},
    }
    with pytest.raises(RecipeError, match=r"scheme.peers: .*Expected a network here"):
        run_of(recipe(**sections), folder / "run")


def test_a_search_refuses_an_estimator(folder: Path) -> None:
    pytest.importorskip("optuna")
    settings = Settings(num_trials=1, num_seeds=1)
    with pytest.raises(RecipeError, match=r"student.model: a search compares trainings in steps"):
        search.start(recipe(**RECIPE), settings, folder / "search", Console(quiet=True))


def test_neighbours_learn_hard_labels_only(folder: Path) -> None:
    sections = RECIPE | {
        "student": {"model": "sklearn:KNeighborsClassifier"},
        "objectives": {"cross_entropy": {}},
        "teacher": None,
    }
    result = run_of(recipe("baselines=[]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.5
    with pytest.raises(RecipeError, match=r"baselines: label_smoothing: student.model: KNeigh"):
        run_of(recipe("baselines=[label_smoothing]", **sections), folder / "other")
