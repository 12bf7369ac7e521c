"""Searches over students and methods."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.recipe import load
from instil.search.arms import Arm
from instil.search.evidence import compare_finalists
from instil.search.search import Settings, start
from instil.search.student_methods import METHODS, _chosen, chosen_students
from instil.search.student_outcome import choose_student
from instil.search.trainer import Trainer
from tests.search.recipes import continue_search, recipe, silent, without_times

slow = pytest.mark.slow
BUDGET = 60
QUALITIES = {"a": 0.7, "b": 0.8, "c": 0.9, "d": 0.95}
SIZES = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search over students and methods."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("joint") / "first"
    settings = Settings(
        over=("students", "methods"),
        students=("networks",),
        candidates=("dkd",),
        max_runs=BUDGET,
        num_seeds=2,
        keep=0.5,
    )
    own = recipe(train={"steps": 20, "optimizer": {"type": "adamw", "lr": 1e-2}})
    start(own, settings, path, silent())
    return path


@pytest.fixture
def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return content


@slow
def test_methods_are_searched_for_students_of_the_frontier(
    folder: Path, outcome: dict[str, Any]
) -> None:
    first = {trial["arm"] for trial in outcome["trials"] if "@" not in trial["arm"]}
    assert first == {"recipe", "mlp_w8_d1", "mlp_w4_d1"}
    students = {arm["name"].partition("@")[2] for arm in outcome["arms"]}
    assert 1 <= len(students) <= 3
    assert students <= first
    for student in students:
        methods = {
            arm["name"].partition("@")[0]
            for arm in outcome["arms"]
            if arm["name"].endswith(f"@{student}")
        }
        assert {"alone", "label_smoothing", "pseudo_labels", "kd", "dkd"} <= methods
    assert outcome["steps"] <= BUDGET * 20
    # The final trainings are those of the second phase.
    assert all("@" in trial["arm"] for trial in outcome["trials"] if trial["round"] < 0)
    rounds = [trial["round"] for trial in outcome["trials"] if "@" not in trial["arm"]]
    later = [trial["round"] for trial in outcome["trials"] if "@" in trial["arm"]]
    assert max(rounds) < min(index for index in later if index >= 0)


@slow
def test_the_winner_has_a_student_and_a_method(folder: Path, outcome: dict[str, Any]) -> None:
    row = next(row for row in outcome["finalists"] if row["name"] == outcome["winner"])
    best = load(folder / "best.yaml")
    arm = next(arm for arm in outcome["arms"] if arm["name"] == row["arm"])
    assert best.student.options == arm["changes"].get("student", {}).get("options", {"width": 16})
    assert list(best.objectives) == list(arm["changes"]["objectives"])
    assert best.baselines == ["alone", "label_smoothing", "pseudo_labels"]
    assert row["bytes"] > 0
    compared = [row for row in outcome["finalists"] if row["arm"].startswith("dkd@")]
    assert compared
    assert all(set(row["differences"]) == {"pseudo_labels", "alone"} for row in compared)
    assert "Quality against size" in (folder / "search.html").read_text()


@slow
def test_a_continued_search_ends_with_the_same_result(
    folder: Path, outcome: dict[str, Any]
) -> None:
    (folder / "search.json").unlink()
    for trial in sorted((folder / "trials").iterdir())[::3]:
        trial.unlink()
    assert (folder / METHODS).exists()
    continue_search(folder)
    again = json.loads((folder / "search.json").read_text())
    assert without_times(again) == without_times(outcome)


def test_the_neighbours_of_the_target_are_chosen() -> None:
    assert chosen_students(QUALITIES, SIZES, 0.85) == ["c", "b", "d"]
    assert chosen_students(QUALITIES, SIZES, 0.6) == ["a", "b"]
    # No student meets the target, or there is none.
    assert chosen_students(QUALITIES, SIZES, 0.99) == ["d", "c"]
    assert chosen_students(QUALITIES, SIZES, None) == ["d", "c"]
    dominated = QUALITIES | {"e": 0.75}
    assert chosen_students(dominated, SIZES | {"e": 3.5}, 0.72) == ["b", "a", "c"]


def test_each_student_has_its_own_reference_arms() -> None:
    scores = {
        "dkd@a": [0.9, 0.8],
        "alone@a": [0.5, 0.4],
        "dkd@b": [0.7, 0.7],
        "alone@b": [0.6, 0.7],
    }
    differences, _ = compare_finalists(scores, "dkd@a", True)
    assert differences["dkd@a"]["alone"]["mean"] == pytest.approx(0.4)
    assert differences["dkd@b"]["alone"]["mean"] == pytest.approx(0.05)
    assert differences["alone@b"] == {}


def test_the_best_method_of_the_smallest_student_wins() -> None:
    rows = {
        name: {
            "validation": {"mean": score},
            "bytes": size,
            "latency_ms": 1.0,
            "violation": "",
        }
        for name, score, size in (("kd@a", 0.91, 10), ("dkd@a", 0.93, 10), ("dkd@b", 0.99, 20))
    }
    assert choose_student(rows, 0.9, True) == ("dkd@a", True)


def test_random_search_is_refused() -> None:
    with pytest.raises(ValueError, match="--strategy: random for students and methods at once"):
        Settings(over=("students", "methods"), strategy="random")


def test_the_target_is_the_score_of_the_teacher_on_all_validation_samples(tmp_path: Path) -> None:
    """The score of the signals, on a few samples, may be far from it."""
    trainer = Trainer(Experiment.from_recipe(recipe()), tmp_path)
    trainer.train_teachers()
    settings = Settings(over=("students", "methods"), keep=0.9)
    costs = {"small": {"bytes": 1.0}, "large": {"bytes": 2.0}}
    arms = [Arm(name, "student", False, {}, costs=costs[name]) for name in costs]
    state = SimpleNamespace(settings=settings, signals={"teacher_score": 0.2})
    scores = {"small": 0.3, "large": 0.99}
    first: Any = SimpleNamespace(
        state=state, trainer=trainer, higher_is_better=True, scores=lambda arms: scores
    )
    assert [arm.name for arm in _chosen(first, arms)] == ["large", "small"]
