"""Means over seeds, and paired gains with a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONFIDENCE_LEVEL = 0.95
EQUAL = 1e-9
"""Largest standard deviation of equal differences, relative to their mean."""


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Compute mean and sample standard deviation.

    Args:
        values: one value per seed, at least one.

    Returns:
        ``mean``, ``std`` (with ``ddof=1``; None for a single value) and ``values``.
    """
    mean = sum(values) / len(values)
    return {"mean": mean, "std": _sample_std(values, mean), "values": list(values)}


def paired_gain(
    treated: Sequence[float], control: Sequence[float], higher_is_better: bool = True
) -> dict[str, Any]:
    """Compute the mean paired improvement with the confidence interval of Student's t.

    Args:
        treated: one value per seed.
        control: values to compare with, of the same seeds.
        higher_is_better: False for a metric such as perplexity. A positive gain is always an
            improvement: ``treated - control``, or ``control - treated``.

    Equal differences have no noise that Student's t could be computed from, such as those of a
    metric with few levels, or of trainings without randomness. Then ``p`` is that of the exact test
    that flips the signs of the differences, 2 ** (1 - seeds).

    Returns:
        ``mean``, ``std``, ``interval``, ``level``, ``paired``, ``p`` (paired t test) and
        ``significant`` (p below 0.05: the interval does not contain zero). With a single seed,
        ``std``, ``interval`` and ``p`` are None.

    Raises:
        ValueError: if the numbers of values differ.
    """
    sign = 1 if higher_is_better else -1
    differences = [sign * (a - b) for a, b in zip(treated, control, strict=True)]
    mean = sum(differences) / len(differences)
    std = _sample_std(differences, mean)
    p = None if std is None else _p_value(mean, std, len(differences))
    interval = None if std is None else _interval(mean, std, len(differences))
    return {
        "mean": mean,
        "std": std,
        "interval": interval,
        "level": CONFIDENCE_LEVEL,
        "paired": True,
        "p": p,
        "significant": p is not None and p < 1 - CONFIDENCE_LEVEL,
    }


def _interval(mean: float, std: float, num_values: int) -> list[float]:
    from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]

    quantile = float(t.ppf(0.5 + CONFIDENCE_LEVEL / 2, num_values - 1))
    half_width = quantile * std / num_values**0.5
    return [mean - half_width, mean + half_width]


def _p_value(mean: float, std: float, num_values: int) -> float:
    from scipy.stats import t

    # Differences that are equal up to rounding.
    if std <= EQUAL * abs(mean):
        return 2.0 ** (1 - num_values) if mean else 1.0
    return float(2 * t.sf(abs(mean) / (std / num_values**0.5), num_values - 1))


def _sample_std(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)
