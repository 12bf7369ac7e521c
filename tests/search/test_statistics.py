"""Statistics and schedules of a search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import ttest_rel

from instil.search.evidence import better_on_test, compare_finalists, holm
from instil.search.outcome import rank_rows
from instil.search.pruning import is_behind
from instil.search.schedule import plan_random, plan_schedule
from instil.search.student_outcome import chance_notes


def test_holm_multiplies_by_the_number_of_remaining_tests() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_p_values_are_those_of_the_paired_t_test() -> None:
    scores = {"dkd": [0.9, 0.92, 0.95], "alone": [0.8, 0.85, 0.83]}
    differences, best = compare_finalists(scores, "dkd", True)
    expected = ttest_rel(scores["dkd"], scores["alone"]).pvalue
    # Two differences are tested: dkd from alone. Alone has no difference from itself.
    assert differences["dkd"]["alone"]["p"] == pytest.approx(expected)
    assert differences["alone"] == {}
    assert best == ["dkd"]


def test_equal_methods_are_all_best() -> None:
    scores = {"dkd": [0.9, 0.8, 0.85], "kd": [0.88, 0.83, 0.84], "alone": [0.5, 0.5, 0.5]}
    _, best = compare_finalists(scores, "dkd", True)
    assert best == ["dkd", "kd"]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_method_that_is_better_on_test_data_is_in_the_best_set(higher_is_better: bool) -> None:
    sign = 1 if higher_is_better else -1
    scores = {"dkd": [0.5, 0.52, 0.54], "kd": [0.8, 0.83, 0.85], "alone": [0.1, 0.12, 0.15]}
    scores = {name: [sign * value for value in values] for name, values in scores.items()}
    assert compare_finalists(scores, "dkd", higher_is_better)[1] == ["dkd", "kd"]
    assert better_on_test(scores, "dkd", higher_is_better) == ["kd"]
    assert better_on_test(scores, "kd", higher_is_better) == []


def test_of_equal_scores_the_reference_is_first() -> None:
    rows = {
        name: {"validation": {"mean": mean}, "is_reference": name in ("kd", "alone")}
        for name, mean in {"dkd": 0.1 + 0.2, "kd": 0.3, "alone": 0.2, "dist": 0.2}.items()
    }
    assert rank_rows(rows, True) == ["kd", "dkd", "alone", "dist"]
    assert rank_rows(rows, False) == ["alone", "dist", "kd", "dkd"]


def test_rounds_become_smaller_and_longer() -> None:
    schedule = plan_schedule(81, 4, 2700, None)
    assert [rung.num_candidates for rung in schedule.rungs] == [81, 27, 9, 3]
    assert [rung.num_steps for rung in schedule.rungs] == [100, 300, 900, 2700]
    assert schedule.total_steps == 85 * 100 + 31 * 300 + 13 * 900 + 7 * 2700 + 7 * 3 * 2700


@pytest.mark.parametrize("budget", [30_000, 40_000, 60_000, 100_000])
def test_a_schedule_never_exceeds_its_budget(budget: int) -> None:
    schedule = plan_schedule(81, 4, 1000, budget, num_trials=8)
    assert schedule.total_steps <= budget
    assert schedule.num_references == 4
    assert plan_random(schedule).total_steps <= budget


def test_a_large_budget_makes_the_rounds_longer() -> None:
    usual = plan_schedule(81, 4, 2700, None)
    longer = plan_schedule(81, 4, 2700, 2 * usual.total_steps)
    assert 0.85 * 2 * usual.total_steps < longer.total_steps <= 2 * usual.total_steps
    assert longer.rungs[0].num_steps > 2 * usual.rungs[0].num_steps
    # The final trainings replace the last of the usual rounds, which had the finalists only.
    assert [rung.num_candidates for rung in longer.rungs] == [81, 27, 9]
    assert longer.rungs[-1].num_steps == 2700
    assert not longer.notes
    # Every arm is trained to the end: more steps cannot be used.
    largest = plan_schedule(81, 4, 2700, 10**9)
    assert [(rung.num_candidates, rung.num_steps) for rung in largest.rungs] == [(81, 2700)]


def test_rounds_with_new_options_stay_at_the_full_length() -> None:
    largest = plan_schedule(81, 4, 2700, 10**9, num_trials=4)
    assert [rung.num_steps for rung in largest.rungs] == [2700] * 4


def test_a_trial_far_behind_its_rivals_stops() -> None:
    rivals = [[[5, score], [10, score + 0.1]] for score in (0.5, 0.6, 0.7, 0.8)]
    assert is_behind([[5, 0.2]], rivals, higher_is_better=True)
    assert not is_behind([[5, 0.75]], rivals, higher_is_better=True)
    assert not is_behind([[5, 0.2]], rivals, higher_is_better=False)
    assert not is_behind([[5, 0.2]], rivals[:3], higher_is_better=True)


@pytest.mark.parametrize("budget", [3000, 6000])
def test_a_schedule_without_reference_arms_keeps_its_budget(budget: int) -> None:
    schedule = plan_schedule(15, 0, 300, budget, num_finalists=6)
    assert schedule.num_references == 0
    assert 1 <= schedule.num_finalists <= 6
    assert schedule.total_steps <= budget


@pytest.mark.parametrize(("accuracy", "is_reported"), [(0.12, True), (0.4, False), (None, False)])
def test_a_teacher_at_chance_is_reported(accuracy: float | None, is_reported: bool) -> None:
    task = SimpleNamespace(headline="accuracy", kind="single")
    experiment = SimpleNamespace(task=task, splits=SimpleNamespace(classes=range(10)))
    study: Any = SimpleNamespace(
        state=SimpleNamespace(settings=SimpleNamespace(has_students=True, keep=0.99)),
        trainer=SimpleNamespace(experiment=experiment),
    )
    notes = chance_notes(study, {"validation": {"accuracy": accuracy}})
    assert len(notes) == is_reported
    assert all("hardly better than guessing (accuracy 0.12 with 10 classes)" in n for n in notes)
