"""Teachers with their own fit: in a run, its cache, doctor, plan and record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.experiment import fitted_teacher
from instil.experiment.experiment import Experiment
from instil.networks.sklearn_model import SklearnModel
from instil.plan.doctor import doctor
from instil.plan.overview import overview
from instil.plan.plan import Plan
from instil.plan.recording import record_outputs
from instil.recipe.errors import RecipeError
from tests.experiment.small import numbers, recipe, run_of

pytest.importorskip("skops")
FOREST = {"model": "sklearn:RandomForestClassifier", "options": {"n_estimators": 20}}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of samples of all fits."""
    counts: list[int] = []
    original = SklearnModel.fit

    def counting(self: SklearnModel, inputs: Any, label: Any) -> None:
        counts.append(len(label))
        original(self, inputs, label)

    monkeypatch.setattr(fitted_teacher.SklearnModel, "fit", counting)
    return counts


def test_a_forest_teaches_a_network_and_is_fitted_once(tmp_path: Path, fits: list[int]) -> None:
    forest = recipe("seeds=[0]", teacher=FOREST)
    result = run_of(forest, tmp_path / "first")
    assert len(fits) == 1
    assert result["teacher"]["accuracy"]["mean"] > 0.9
    assert {"alone", "label_smoothing", "pseudo_labels", "distilled"} <= set(result)
    assert numbers(run_of(forest, tmp_path / "second")) == numbers(result)
    assert len(fits) == 1, "the second run reads the cache"
    other = recipe("seeds=[0]", "teacher.options.n_estimators=3", teacher=FOREST)
    assert run_of(other, tmp_path / "third")["teacher"] != result["teacher"]
    assert len(fits) == 2


def test_doctor_and_plan_before_and_after_the_fit(tmp_path: Path, fits: list[int]) -> None:
    forest = recipe("seeds=[0]", teacher=FOREST)
    findings = doctor(forest)
    assert fits == [256, 512], "the time is extrapolated from two small fits"
    assert 0 < findings["run"]["teacher_seconds"] < findings["run"]["seconds"]
    note = "extrapolated from fits on 256 and 512 of 1,000 training samples"
    assert note in findings["notes"][-1]
    (job,) = [job for job in overview(forest)["jobs"] if job["kind"] == "teacher"]
    assert job["seconds"] > 0
    assert note in job["note"]
    assert findings["run"]["teachers"] == 1
    assert findings["stages"][0]["teacher"]["roles"] == {"logits": [250, 10]}
    plan = Plan.compile(Experiment.from_recipe(forest))
    assert [plan.is_done(job, None) for job in plan.teachers] == [False]
    run_of(forest, tmp_path / "run")
    assert [plan.is_done(job, None) for job in plan.teachers] == [True]
    assert doctor(forest)["stages"][0]["teacher_trained"]


def test_a_recorded_forest_gives_the_same_student(tmp_path: Path) -> None:
    changes = ("seeds=[0]", "baselines=[]")
    stored = recipe(*changes, f"store.path={tmp_path / 'store'}", teacher=FOREST)
    record_outputs(stored, Console(quiet=True))
    live = run_of(recipe(*changes, teacher=FOREST), tmp_path / "live")
    assert numbers(run_of(stored, tmp_path / "run")) == numbers(live)


def test_replicas_differ_by_their_random_state(tmp_path: Path, fits: list[int]) -> None:
    several = recipe("seeds=[0]", "baselines=[]", teacher=FOREST | {"num_replicas": 2})
    run_of(several, tmp_path / "run")
    assert len(fits) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"model": "sklearn:SVC"}}, "student: sklearn:SVC gives no probabilities"),
        ({"student": FOREST}, "student.model: .* is a student of table rows only"),
        ({"teacher": FOREST | {"taps": {"features": "0"}}}, "has no weights; leave taps out"),
        ({"teacher": FOREST | {"scheme": "ema"}}, "is trained by its own fit; leave scheme out"),
        ({"teacher": FOREST | {"checkpoint_at": 0.5}}, "checkpoint_at"),
        ({"teacher": {"model": "sklearn:Forest"}}, "teacher: sklearn has no classifier"),
        (
            {"teacher": {"model": "sklearn:Ridge"}},
            "teacher: sklearn:Ridge does not predict classes",
        ),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(recipe(**changes), tmp_path / "run")


def test_a_forest_cannot_read_texts() -> None:
    texts: dict[str, Any] = {
        "task": "text_classification",
        "data": {"name": "digit_tokens", "batch_size": 50},
        "student": {"model": "text_transformer", "options": {"width": 8, "depth": 1}},
    }
    with pytest.raises(RecipeError, match=r"teacher: .*one tensor of numbers per sample"):
        doctor(recipe("seeds=[0]", teacher=FOREST, **texts))
