"""Strategy and prior that a search takes by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.search.arms import Arm
from instil.search.planning import plan_search
from instil.search.state import Settings
from instil.search.strategy import MIN_CANDIDATES, resolve_settings
from tests.search.recipes import recipe

REFERENCES = [Arm(name, "objective", True, {}) for name in ("kd", "alone")]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """An experiment whose labels are classes."""
    return Experiment.from_recipe(recipe())


def arms(count: int) -> list[Arm]:
    """``count`` candidates and two references."""
    return [
        *(Arm(f"method_{index}", "objective", False, {}) for index in range(count)),
        *REFERENCES,
    ]


def resolved(experiment: Experiment, count: int, **settings: Any) -> Settings:
    """Settings without ``auto`` for a number of candidates."""
    return resolve_settings(experiment, Settings(num_seeds=1, **settings), arms(count), 1)


def test_a_search_over_methods_halves_over_seeds_at_the_same_cost(experiment: Experiment) -> None:
    settings = resolved(experiment, 60)
    assert (settings.strategy, settings.prior) == ("seeds", "model")
    over_steps = replace(settings, strategy="halving", max_steps=None)
    assert settings.max_steps == plan_search(experiment, over_steps, arms(60), 1).total_steps
    with_budget = resolved(experiment, 60, max_runs=40)
    assert (with_budget.strategy, with_budget.max_runs) == ("seeds", 40)
    assert with_budget.max_steps is None


def test_few_methods_are_halved_over_steps(experiment: Experiment) -> None:
    assert resolved(experiment, MIN_CANDIDATES - 1, max_runs=100).strategy == "halving"
    assert resolved(experiment, MIN_CANDIDATES, max_runs=100).strategy == "seeds"
    # Six trainings of the references, and those of at most three methods.
    assert resolved(experiment, 60, max_runs=14).strategy == "halving"


@pytest.mark.parametrize(
    "settings", [{"over": ("methods", "options")}, {"num_folds": 3}, {"over": ("options",)}]
)
def test_other_searches_halve_over_steps(experiment: Experiment, settings: Any) -> None:
    chosen = resolved(experiment, 60, max_runs=400, **settings)
    assert (chosen.strategy, chosen.prior) == ("halving", "none")


def test_labels_that_the_model_does_not_know(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instil.search.strategy.read_gain_model", lambda: {"kinds": ["real"]})
    chosen = resolved(experiment, 60, max_runs=100)
    assert (chosen.strategy, chosen.prior) == ("halving", "none")
    # A strategy that is named stays, with methods in a random order.
    chosen = resolved(experiment, 60, max_runs=100, strategy="seeds")
    assert (chosen.strategy, chosen.prior) == ("seeds", "none")


def test_named_settings_stay(experiment: Experiment) -> None:
    for strategy, prior in (("seeds", "none"), ("halving", "model"), ("random", "none")):
        chosen = resolved(experiment, 60, max_runs=100, strategy=strategy, prior=prior)
        assert (chosen.strategy, chosen.prior) == (strategy, prior)
    assert resolved(experiment, 60, max_runs=100, strategy="seeds").prior == "model"
    assert resolved(experiment, 60, max_runs=100, strategy="halving").prior == "none"
