"""Comparison of methods over several tasks by ranks (Demsar 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from instil.search.evidence import ALPHA, SCORE_DIGITS, holm, rounded

Scores = npt.NDArray[np.float64]
FEWEST_TASKS = 2
FEWEST_METHODS = 3
DIFFERENCE_DIGITS = 6
"""Significant digits of a difference that count: 0.9 - 0.8 is not 0.8 - 0.7 in floating point."""


@dataclass(frozen=True)
class RankTest:
    """Average ranks with the Friedman test and the critical difference of Nemenyi.

    Attributes:
        mean_ranks: average rank of each method; 1 is the best.
        p: p-value of the Friedman test for equal methods.
        critical_difference: methods whose average ranks differ by more are different.
        groups: largest sets of methods (indices) that the test does not separate.
        num_tasks: number of tasks.
    """

    mean_ranks: list[float]
    p: float
    critical_difference: float
    groups: list[list[int]]
    num_tasks: int


def rank_test(scores: Scores, alpha: float = ALPHA) -> RankTest:
    """Compare three or more methods over tasks by the Friedman and the Nemenyi test.

    Args:
        scores: (tasks, methods), a higher score is better.
        alpha: level of both tests.

    Raises:
        ValueError: for fewer than two tasks or three methods.

    Example:
        >>> import numpy as np
        >>> test = rank_test(np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.3, 0.2, 0.25]]))
        >>> [round(rank, 2) for rank in test.mean_ranks], round(test.critical_difference, 2)
        ([1.0, 2.33, 2.67], 1.91)
    """
    from scipy.stats import friedmanchisquare  # type: ignore[import-untyped, unused-ignore]

    num_tasks, num_methods = scores.shape
    if num_tasks < FEWEST_TASKS or num_methods < FEWEST_METHODS:
        raise ValueError(
            f"scores: too few for the Friedman test. Expected {FEWEST_TASKS} tasks and "
            f"{FEWEST_METHODS} methods, got {num_tasks} and {num_methods}"
        )
    scores = _rounded(scores, SCORE_DIGITS)
    mean_ranks = average_ranks(scores)
    difference = critical_difference(num_methods, num_tasks, alpha)
    is_tied = bool((scores == scores[:, :1]).all())
    # The statistic of the test is 0 / 0 if all methods are equal on all tasks.
    p = 1.0 if is_tied else float(friedmanchisquare(*scores.T).pvalue)
    return RankTest(mean_ranks, p, difference, rank_groups(mean_ranks, difference), num_tasks)


def average_ranks(scores: Scores) -> list[float]:
    """Return the average rank of each method; 1 is the best, equal scores share a rank.

    Args:
        scores: (tasks, methods), a higher score is better.
    """
    from scipy.stats import rankdata

    rounded = _rounded(scores, SCORE_DIGITS)
    ranks: list[float] = rankdata(-rounded, axis=1).mean(axis=0).tolist()
    return ranks


def _rounded(values: Scores, digits: int) -> Scores:
    """Round to significant digits, so that values that differ by rounding errors are ties."""
    ties = [rounded(value, digits) for value in values.flat]
    return np.array(ties, dtype=np.float64).reshape(values.shape)


def critical_difference(num_methods: int, num_tasks: int, alpha: float = ALPHA) -> float:
    """Return the critical difference of average ranks (Nemenyi 1963; Demsar 2006, section 3.2.2).

    Args:
        num_methods: number of methods.
        num_tasks: number of tasks.
        alpha: level for all pairs together.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - alpha, num_methods, np.inf) / 2**0.5
    return float(quantile * (num_methods * (num_methods + 1) / (6 * num_tasks)) ** 0.5)


def rank_groups(mean_ranks: Sequence[float], difference: float) -> list[list[int]]:
    """Return the largest sets of methods whose average ranks lie within a difference.

    Args:
        mean_ranks: average rank of each method.
        difference: critical difference.

    Returns:
        Indices of the methods, best first; sets of one method are left out.
    """
    order = sorted(range(len(mean_ranks)), key=lambda index: mean_ranks[index])
    groups: list[list[int]] = []
    for start, first in enumerate(order):
        members = [
            index for index in order[start:] if mean_ranks[index] - mean_ranks[first] <= difference
        ]
        if len(members) > 1 and not any(set(members) <= set(group) for group in groups):
            groups.append(members)
    return groups


def wilcoxon_holm(scores: Scores, control: int) -> list[float | None]:
    """Compare each method with a control by the signed-rank test of Wilcoxon.

    Args:
        scores: (tasks, methods), a higher score is better.
        control: index of the control.

    Returns:
        Two-sided p-values of all methods, corrected by Holm; None for the control.
    """
    from scipy.stats import wilcoxon

    scores = _rounded(scores, SCORE_DIGITS)
    p_values: list[float] = []
    others = [index for index in range(scores.shape[1]) if index != control]
    for index in others:
        differences = _rounded(scores[:, index] - scores[:, control], DIFFERENCE_DIGITS)
        p_values.append(float(wilcoxon(differences).pvalue) if differences.any() else 1.0)
    corrected: list[float | None] = [None] * scores.shape[1]
    for index, p in zip(others, holm(p_values), strict=True):
        corrected[index] = p
    return corrected
