"""Prior order of the candidates, and those that a budget leaves out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from instil.early_signals import gain_model
from instil.early_signals.gain_model import predicted_rank, read_gain_model
from instil.early_signals.gradients import GradientSignals
from instil.search.arms import Arm
from instil.search.prior import order_by_model, order_with_prior, within_budget
from instil.search.rounds import Schedule
from instil.search.schedule import plan_schedule
from tests.search.recipes import continue_search, search, without_times

MODEL = {
    "kinds": ["single"],
    "means": {"cosine": 0.5},
    "coefficients": {"cosine": 2.0, "kind:features": -1.0, "method:dkd": 0.25},
}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with three coefficients."""
    monkeypatch.setattr(gain_model, "read_gain_model", lambda file=None: MODEL)


def arm(name: str, cosine: float | None = None, is_reference: bool = False) -> Arm:
    signals = None if cosine is None else GradientSignals(1.0, cosine, 3)
    return Arm(name, "objective", is_reference, {}, signals=signals)


@pytest.mark.usefixtures("model")
def test_the_predicted_rank_is_a_sum_of_features() -> None:
    assert predicted_rank("dkd", {"norm_ratio": 1.0, "cosine": 0.75}) == 0.25 + 2 * 0.25
    # A missing signal has its mean, and an unknown method that of its kind.
    assert predicted_rank("fitnet", None) == -1


@pytest.mark.usefixtures("model")
def test_candidates_are_ordered_by_the_model() -> None:
    arms = [arm("fitnet", 0.5), arm("kd", is_reference=True), arm("nkd", 0.0), arm("dkd", 0.9)]
    own = Arm("recipe", "recipe", False, {})
    names = [one.name for one in order_by_model([*arms, own], MODEL)]
    assert names == ["recipe", "dkd", "fitnet", "nkd", "kd"]


def test_short_rounds_count_the_prior_rank() -> None:
    arms = [arm(name) for name in ("a", "b", "c", "d")]
    # Ranks 0 + 2, 1 + 1, 2 + 0, and an arm that failed.
    scores = {"a": 0.1, "b": 0.2, "c": 0.3, "d": -math.inf}
    # Of arms with an equal sum, the better score is first.
    assert [one.name for one in order_with_prior(arms, scores)] == ["c", "b", "a", "d"]
    scores |= {"c": 0.15}
    assert [one.name for one in order_with_prior(arms, scores)] == ["b", "a", "c", "d"]


def test_a_file_replaces_the_shipped_model(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL))
    model = read_gain_model(str(path))
    assert predicted_rank("fitnet", None, model) == -1
    path.with_name("other.json").write_text('{"means": {}}')
    with pytest.raises(ValueError, match="coefficients, kinds missing"):
        read_gain_model(str(tmp_path / "other.json"))


def test_a_prior_has_the_kind_of_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL | {"kinds": ["real"]}))
    with pytest.raises(ValueError, match="no studies with single labels"):
        search(tmp_path / "prior", prior=str(path), max_runs=7, num_seeds=1)


def plan(arms: Sequence[Arm]) -> Schedule:
    references = sum(one.is_reference for one in arms)
    return plan_schedule(len(arms) - references, references, 27, 250, num_seeds=1)


def test_a_budget_leaves_out_the_last_candidates_and_names_them() -> None:
    arms = [*(arm(f"method_{index}") for index in range(30)), arm("kd", is_reference=True)]
    assert plan(arms).notes
    chosen, schedule = within_budget(arms, plan)
    names = [one.name for one in chosen]
    assert names == [*(f"method_{index}" for index in range(len(names) - 1)), "kd"]
    assert 10 <= len(names) - 1 < 30
    assert schedule.total_steps <= 250
    (note,) = schedule.notes
    assert note.startswith(f"The budget leaves out {31 - len(names)} candidates")
    assert note.endswith("method_29")


def test_a_budget_that_suffices_leaves_nothing_out() -> None:
    arms = [arm("dkd"), arm("nkd"), arm("kd", is_reference=True)]
    assert within_budget(arms, plan) == (arms, plan(arms))


def test_a_third_of_the_candidates_take_part() -> None:
    def small(arms: Sequence[Arm]) -> Schedule:
        references = sum(one.is_reference for one in arms)
        return plan_schedule(len(arms) - references, references, 27, 60, num_seeds=1)

    chosen, schedule = within_budget([arm(str(index)) for index in range(12)], small)
    assert [one.name for one in chosen] == ["0", "1", "2", "3"]
    assert "shrinks" in schedule.notes[1]


def test_a_search_with_a_prior(tmp_path: Path) -> None:
    result = search(tmp_path / "prior", prior="model", max_runs=7, num_seeds=1)
    assert "leaves out" in result["notes"][0]
    left_out = result["notes"][0].partition(": ")[2].split(", ")
    names = {one["name"] for one in result["arms"]}
    assert {*names, *left_out} >= {"dkd", "dist", "kd", "alone"}
    assert not names & set(left_out)


def test_a_continued_search_does_not_need_the_file_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(read_gain_model()))
    settings = {"candidates": ("dkd",), "num_seeds": 1, "strategy": "halving"}
    result = search(tmp_path / "out", prior=str(path), **settings)
    path.unlink()
    continued = continue_search(tmp_path / "out")
    assert without_times(continued) == without_times(result)


def test_the_shipped_model_names_its_sources_and_its_error() -> None:
    shipped = read_gain_model()
    assert shipped["sources"]
    assert set(shipped["leave_one_task_out"]) >= {"correlation", "rmse", "tasks"}
    assert all(abs(value) < 2 for value in shipped["coefficients"].values())
