"""First suggestions for an arm: its published weight."""

from __future__ import annotations

from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.search.arms import Arm, base_data, candidate_arms, with_space
from instil.search.sampling import Sampler, draw_arms, suggest
from tests.search.recipes import recipe

WEIGHT = "objectives.pkt.weight"


@pytest.fixture(scope="module")
def arm() -> Arm:
    """Arm of an objective with the published weight 30000, with its search space."""
    own = recipe()
    task = Experiment.from_recipe(own).task
    (plain,) = candidate_arms(own, task, ["pkt"])
    return with_space(plain, base_data(own), task)


def suggestions(
    arm: Arm, trained: list[dict[str, Any]], count: int = 3, sampler: Sampler = "tpe"
) -> list[dict[str, Any]]:
    results = [
        {"arm": arm.name, "round": 0, "score": score, "params": params}
        for score, params in enumerate(trained)
    ]
    return suggest(arm, results, count, True, sampler, seed=0)


def test_the_first_suggestion_has_the_published_weight(arm: Arm) -> None:
    start = arm.defaults() | {WEIGHT: 30_000.0}
    first, *others = suggestions(arm, [arm.defaults()])
    assert arm.defaults()[WEIGHT] == 1.0
    assert first == start
    assert len(others) == 2
    assert start not in others
    assert start not in suggestions(arm, [arm.defaults(), start])
    assert suggestions(arm, [arm.defaults()], count=1) == [start]
    assert start not in suggestions(arm, [arm.defaults()], sampler="random")


def test_the_suggestions_after_it_are_those_of_the_sampler(arm: Arm) -> None:
    first, second = suggestions(arm, [arm.defaults()], count=2)
    drawn = suggestions(arm, [arm.defaults(), first], count=1)
    assert len({str(one) for one in (first, second, *drawn)}) == 3
    for params in (second, *drawn):
        assert all(params[one.path] in one for one in arm.dimensions)


def test_a_search_of_an_earlier_version_keeps_its_suggestions(arm: Arm) -> None:
    stored = arm.to_json()
    for dimension in stored["dimensions"]:
        del dimension["published"]
    earlier = Arm.from_json(stored)
    assert earlier.published_start() is None
    assert arm.defaults() | {WEIGHT: 30_000.0} not in suggestions(earlier, [arm.defaults()])
    assert Arm.from_json(arm.to_json()) == arm


def test_a_random_search_without_options_draws_an_arm_once() -> None:
    arms = [Arm(name, "objective", False, {}) for name in "abcdef"]
    for seed in range(5):
        assert len({arm.name for arm in draw_arms(arms, 4, False, seed)}) == 4
    assert len(draw_arms(arms, 9, False, 0)) == 6
    assert len(draw_arms(arms, 9, True, 0)) == 9
    assert draw_arms([], 4, True, 0) == []
