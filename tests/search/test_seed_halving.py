"""Sequential halving over seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from instil.search.schedule import plan_schedule
from instil.search.search import Settings
from instil.search.seed_halving import plan_seeds
from tests.search.recipes import search


@pytest.mark.parametrize("budget", [90, 300, 500, None])
def test_a_budget_limits_the_candidates(budget: int | None) -> None:
    schedule = plan_seeds(60, 3, 5, budget, num_seeds=2)
    first, second = (rung.num_candidates for rung in schedule.rungs)
    assert all(rung.num_steps == 5 for rung in schedule.rungs)
    assert second == max(min(3, first), round(first / 3))
    assert schedule.num_finalists == max(min(3, first), round(first / 6))
    if budget is None:
        assert first == 60
    else:
        # One more candidate would not fit.
        assert budget - 15 < schedule.total_steps <= budget


def test_a_budget_that_is_too_small() -> None:
    with pytest.raises(ValueError, match="Expected at least 80 optimizer steps"):
        plan_seeds(10, 3, 5, 79, num_seeds=2)


def test_reference_arms_alone_have_a_schedule() -> None:
    assert [rung.num_candidates for rung in plan_seeds(0, 3, 5, None).rungs] == [0, 0]
    schedule = plan_schedule(0, 3, 9, None, num_trials=2)
    assert [(rung.num_candidates, rung.num_steps) for rung in schedule.rungs] == [
        (0, 1),
        (0, 3),
        (0, 9),
    ]


def test_options_have_no_halving_over_seeds() -> None:
    with pytest.raises(ValueError, match="--strategy seeds: every training has the published"):
        Settings(strategy="seeds", over=("methods", "options"))


def test_every_round_has_its_own_seed_and_the_mean_decides(tmp_path: Path) -> None:
    result = search(tmp_path / "seeds", strategy="seeds", num_seeds=1)
    trials = [trial for trial in result["trials"] if trial["score"] is not None]
    assert {trial["num_steps"] for trial in trials} == {9}
    seeds = {}
    for index in (0, 1, -1):
        seeds[index] = {trial["seed"] for trial in trials if trial["round"] == index}
    assert all(len(own) == 1 for own in seeds.values())
    assert len(set.union(*seeds.values())) == 3
    scores: dict[str, list[float]] = {}
    for trial in trials:
        scores.setdefault(trial["arm"], []).append(trial["score"])
    finalists = {row["name"]: row["validation"]["values"] for row in result["finalists"]}
    for name, values in finalists.items():
        is_reference = name in ("alone", "label_smoothing", "pseudo_labels", "kd")
        assert sorted(values) == pytest.approx(sorted(scores[name])) or is_reference
    best = max(finalists, key=lambda name: fmean(finalists[name]))
    assert fmean(finalists[result["winner"]]) == pytest.approx(fmean(finalists[best]))


def test_a_budget_leaves_out_methods(tmp_path: Path) -> None:
    result = search(tmp_path / "few", strategy="seeds", num_seeds=1, max_runs=15)
    assert "leaves out" in result["notes"][0]
    assert result["steps"] <= 15 * 9


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_the_last_round_has_no_fewer_methods_than_finalists(count: int) -> None:
    schedule = plan_seeds(count, 3, 5, None)
    assert schedule.rungs[-1].num_candidates >= schedule.num_finalists == min(3, count)
