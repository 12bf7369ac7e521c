"""Ranks over tasks: the example of Demsar (2006), and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from instil.comparison.ranks import (
    average_ranks,
    critical_difference,
    rank_groups,
    rank_test,
    wilcoxon_holm,
)

AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        # The paper ranks C4.5+cf before C4.5+m+cf here; both are 0.975 with three decimals.
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
"""Demsar (2006), Table 6: C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets."""


def test_average_ranks_are_those_of_the_paper() -> None:
    assert average_ranks(AUC) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)


def test_the_friedman_test_agrees_with_its_definition() -> None:
    num_tasks, num_methods = AUC.shape
    ranks = np.array(average_ranks(AUC))
    scale = 12 * num_tasks / (num_methods * (num_methods + 1))
    statistic = scale * (np.sum(ranks**2) - num_methods * (num_methods + 1) ** 2 / 4)
    # The paper leaves out the correction for ties, which scipy makes.
    ties = sum(
        np.sum(counts**3 - counts)
        for row in AUC
        for _, counts in [np.unique(row, return_counts=True)]
    )
    correction = 1 - ties / (num_tasks * num_methods * (num_methods**2 - 1))
    assert statistic == pytest.approx(9.28, abs=5e-3)
    expected = friedmanchisquare(*AUC.T)
    assert expected.statistic == pytest.approx(statistic / correction)
    assert rank_test(AUC).p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("num_methods", "alpha", "expected"),
    [(2, 0.05, 1.960), (3, 0.05, 2.343), (4, 0.05, 2.569), (10, 0.05, 3.164), (4, 0.10, 2.291)],
)
def test_critical_values_are_those_of_the_table(
    num_methods: int, alpha: float, expected: float
) -> None:
    """Demsar (2006), Table 5 (a); its entries are cut after three decimals."""
    factor = (num_methods * (num_methods + 1) / (6 * 14)) ** 0.5
    value = critical_difference(num_methods, 14, alpha) / factor
    assert value == pytest.approx(expected, abs=1e-3)


def test_groups_are_those_of_the_paper() -> None:
    """At 5 % no pair differs; at 10 % C4.5 is worse than both variants with m (Figure 1 a)."""
    assert rank_test(AUC).critical_difference == pytest.approx(1.25, abs=5e-3)
    assert rank_test(AUC).groups == [[3, 1, 2, 0]]
    at_ten_percent = rank_test(AUC, alpha=0.10)
    assert at_ten_percent.critical_difference == pytest.approx(1.12, abs=5e-3)
    assert at_ten_percent.groups == [[3, 1, 2], [2, 0]]


def test_methods_that_are_far_apart_form_no_group() -> None:
    assert rank_groups([1.0, 2.0, 3.0], 0.5) == []
    assert rank_groups([3.0, 1.0, 1.2], 0.5) == [[1, 2]]


def test_equal_methods_are_not_different() -> None:
    test = rank_test(np.ones((5, 3)))
    assert test.p == 1
    assert test.mean_ranks == [2, 2, 2]


def test_means_that_differ_by_rounding_are_ties() -> None:
    """The same test accuracies in another order, and equal differences of other scores."""
    accuracies = np.array([340, 342, 344]) / 360
    means = [np.mean(accuracies), np.mean(accuracies[::-1]), 0.5]
    assert means[0] != means[1]
    scores = np.array([means, [*means[:2], 0.6]])
    assert average_ranks(scores) == [1.5, 1.5, 3]
    assert rank_test(scores).p == pytest.approx(friedmanchisquare(*[[1, 1], [1, 1], [0, 0]]).pvalue)
    assert wilcoxon_holm(scores[:, :2], control=0) == [None, 1.0]
    gains = np.array([[0.8, 0.9], [0.7, 0.8], [0.5, 0.6], [0.9, 0.7], [0.2, 0.5]])
    expected = wilcoxon(np.array([1, 1, 1, -2, 3])).pvalue
    assert wilcoxon_holm(gains, control=0)[1] == pytest.approx(expected)


def test_too_few_tasks_or_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected 2 tasks and 3 methods, got 14 and 2"):
        rank_test(AUC[:, :2])


def test_wilcoxon_p_values_are_corrected_by_holm() -> None:
    raw = [wilcoxon(AUC[:, index] - AUC[:, 3]).pvalue for index in range(3)]
    smallest, middle, largest = sorted(raw)
    expected = {
        smallest: 3 * smallest,
        middle: max(3 * smallest, 2 * middle),
        largest: max(3 * smallest, 2 * middle, largest),
    }
    corrected = wilcoxon_holm(AUC, control=3)
    assert corrected[3] is None
    assert corrected[:3] == pytest.approx([min(1, expected[p]) for p in raw])
    assert wilcoxon_holm(np.ones((4, 2)), control=0) == [None, 1.0]
