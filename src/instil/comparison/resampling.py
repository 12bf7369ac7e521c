"""Statistics over tasks and seeds with stratified bootstrap intervals (Agarwal et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
NUM_RESAMPLES = 2000


def stratified_interval(
    statistic: Callable[..., Any], num_seeds: Sequence[int], level: float = 0.95, seed: int = 0
) -> list[float] | None:
    """Return the percentile bootstrap interval of a statistic; seeds are drawn within each task.

    Args:
        statistic: maps one index array (..., seeds) per task to a value (...).
        num_seeds: number of seeds of each task.
        level: level of the interval.
        seed: seed of the resampling.

    Returns:
        Both ends; None if a task has a single seed.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped, unused-ignore]

    if min(num_seeds) < 2:
        return None
    result = bootstrap(
        tuple(np.arange(count) for count in num_seeds),
        lambda *indices, axis=-1: statistic(*(part.astype(np.int64) for part in indices)),
        n_resamples=NUM_RESAMPLES,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return [float(interval.low), float(interval.high)]


def mean_difference(treated: Sequence[Array], control: Sequence[Array]) -> dict[str, Any]:
    """Return the mean over tasks of the mean paired difference, with its bootstrap interval.

    Args:
        treated: scores of each task, one per seed.
        control: scores of the same seeds.

    Returns:
        ``mean`` and ``interval``.
    """
    differences = [a - b for a, b in zip(treated, control, strict=True)]

    def statistic(*indices: Indices) -> Array:
        means = [task[index].mean(-1) for task, index in zip(differences, indices, strict=True)]
        return np.asarray(np.mean(means, axis=0))

    return _estimate(statistic, treated, "mean")


def probability_of_improvement(
    treated: Sequence[Array], control: Sequence[Array]
) -> dict[str, Any]:
    """Return the probability that a run of one method is better than a run of another.

    It is the Mann-Whitney statistic of each task divided by the number of pairs, averaged over the
    tasks. A tie counts one half. The bootstrap draws the same seeds for both methods, which share
    data and initial weights.

    Args:
        treated: scores of each task, one per seed; higher is better.
        control: scores of the same seeds.

    Returns:
        ``probability`` and ``interval``.

    Example:
        >>> import numpy as np
        >>> scores = np.array([0.8, 0.9]), np.array([0.7, 0.8])
        >>> probability_of_improvement([scores[0]], [scores[1]])["probability"]
        0.875
    """

    def statistic(*indices: Indices) -> Array:
        shares = []
        for a, b, index in zip(treated, control, indices, strict=True):
            gaps = a[index][..., :, None] - b[index][..., None, :]
            shares.append(((np.sign(gaps) + 1) / 2).mean((-1, -2)))
        return np.asarray(np.mean(shares, axis=0))

    return _estimate(statistic, treated, "probability")


def _estimate(statistic: Callable[..., Any], scores: Sequence[Array], name: str) -> dict[str, Any]:
    num_seeds = [len(task) for task in scores]
    value = float(statistic(*(np.arange(count) for count in num_seeds)))
    return {name: value, "interval": stratified_interval(statistic, num_seeds)}


def cost_ratios(costs: Array) -> Array:
    """Return the cost of each method divided by the lowest cost of the task.

    Args:
        costs: (..., tasks, methods), at least 0; lower is better.
    """
    lowest = costs.min(-1, keepdims=True)
    # The method with cost 0 has ratio 1, and all others have an infinite one.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(costs == lowest, 1.0, costs / lowest)


def performance_profile(
    costs: Sequence[Array], factors: Array
) -> tuple[Array, tuple[Array, Array] | None]:
    """Return the performance profile of each method (Dolan and More 2002).

    The profile is the share of tasks on which the mean cost of a method is at most ``factor``
    times the lowest mean cost of the task.

    Args:
        costs: (seeds, methods) of each task, at least 0; lower is better.
        factors: (F,) factors, at least 1.

    Returns:
        Shares (methods, F), and the ends of their 95 % intervals, pointwise, from a stratified
        bootstrap over seeds. None instead of the ends if a task has a single seed.

    Example:
        >>> import numpy as np
        >>> costs = [np.array([[0.1, 0.2]]), np.array([[0.3, 0.2]])]
        >>> performance_profile(costs, np.array([1.0, 1.5, 2.0]))[0].tolist()
        [[0.5, 1.0, 1.0], [0.5, 0.5, 1.0]]
    """

    def shares(means: Array) -> Array:
        # A tolerance, because 0.3 / 0.2 is above 1.5 in floating point.
        is_within = cost_ratios(means)[..., None] <= factors * (1 + 1e-9)
        return np.asarray(is_within.mean(-3))

    profile = shares(np.stack([task.mean(0) for task in costs]))
    if min(len(task) for task in costs) < 2:
        return profile, None
    generator = np.random.default_rng(0)
    resampled = []
    for task in costs:
        drawn = generator.integers(len(task), size=(NUM_RESAMPLES, len(task)))
        resampled.append(task[drawn].mean(1))
    low, high = np.percentile(shares(np.stack(resampled, axis=1)), [2.5, 97.5], axis=0)
    return profile, (low, high)
