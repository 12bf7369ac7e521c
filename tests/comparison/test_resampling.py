"""Bootstrap statistics over tasks and seeds, against independent formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from instil.comparison.resampling import (
    cost_ratios,
    mean_difference,
    performance_profile,
    probability_of_improvement,
)


@pytest.fixture
def tasks() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return scores of two methods on three tasks, with 5, 4 and 3 seeds."""
    generator = np.random.default_rng(0)
    treated = [generator.normal(0.1 * task, 1, 5 - task).round(1) for task in range(3)]
    control = [generator.normal(0, 1, 5 - task).round(1) for task in range(3)]
    return treated, control


def test_probability_of_improvement_is_the_mean_mann_whitney_statistic(tasks) -> None:
    treated, control = tasks
    expected = [
        mannwhitneyu(a, b).statistic / (len(a) * len(b))
        for a, b in zip(treated, control, strict=True)
    ]
    estimate = probability_of_improvement(treated, control)
    assert estimate["probability"] == pytest.approx(np.mean(expected))
    low, high = estimate["interval"]
    assert low <= estimate["probability"] <= high


def test_the_interval_of_a_mean_difference_is_that_of_all_resamples() -> None:
    """Two tasks of two seeds have 16 equally likely resamples, which can be listed."""
    first, second = np.array([0.0, 1.0]), np.array([2.0, 4.0])
    estimate = mean_difference([first, second], [np.zeros(2), np.zeros(2)])
    indices = list(itertools.product(range(2), repeat=2))
    means = [
        (first[list(a)].mean() + second[list(b)].mean()) / 2
        for a, b in itertools.product(indices, indices)
    ]
    assert estimate["mean"] == pytest.approx(1.75)
    assert estimate["interval"] == pytest.approx([min(means), max(means)])


def test_a_task_with_one_seed_has_no_interval(tasks) -> None:
    treated, control = tasks
    estimate = mean_difference([*treated, np.array([1.0])], [*control, np.array([0.0])])
    assert estimate["interval"] is None


def test_intervals_repeat(tasks) -> None:
    assert mean_difference(*tasks) == mean_difference(*tasks)


def test_the_profile_is_the_share_of_tasks_within_a_factor() -> None:
    generator = np.random.default_rng(1)
    costs = [generator.uniform(0.1, 0.5, (3, 4)) for _ in range(6)]
    factors = np.linspace(1, 3, 9)
    profile, band = performance_profile(costs, factors)
    for method, index in itertools.product(range(4), range(9)):
        within = [
            task.mean(0)[method] <= factors[index] * task.mean(0).min() * (1 + 1e-9)
            for task in costs
        ]
        assert profile[method, index] == pytest.approx(np.mean(within))
    assert profile[:, 0].sum() == pytest.approx(1)
    assert (np.diff(profile) >= 0).all()
    assert band is not None
    assert (band[0] <= band[1]).all()


def test_a_cost_of_zero_is_the_lowest() -> None:
    assert cost_ratios(np.array([[0.0, 0.2, 0.0]])).tolist() == [[1, np.inf, 1]]
    profile, band = performance_profile([np.array([[0.0, 0.2]])], np.array([1.0, 100.0]))
    assert profile.tolist() == [[1, 1], [0, 0]]
    assert band is None
