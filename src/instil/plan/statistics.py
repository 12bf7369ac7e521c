"""Means over seeds, and gains that are told apart from noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONFIDENCE_LEVEL = 0.95


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """``mean``, ``std`` (ddof 1; None for one value) and the ``values``."""
    mean = sum(values) / len(values)
    return {"mean": mean, "std": _std(values, mean), "values": list(values)}


def paired_gain(
    treated: Sequence[float], control: Sequence[float], higher_is_better: bool = True
) -> dict[str, Any]:
    """Return mean, standard deviation and Student's interval of the paired improvements.

    Args:
        treated: one value per seed.
        control: the values to compare with, of the same seeds.
        higher_is_better: False for a metric such as perplexity. A positive gain is always an
            improvement: ``treated - control``, or ``control - treated``.

    Returns:
        ``mean``, ``std``, ``interval``, ``level``, ``paired`` and ``significant`` (the interval
        does not contain zero). One seed has neither ``std`` nor ``interval``.
    """
    sign = 1 if higher_is_better else -1
    differences = [sign * (a - b) for a, b in zip(treated, control, strict=True)]
    mean = sum(differences) / len(differences)
    std = _std(differences, mean)
    interval = None
    if std is not None:
        from scipy.stats import t  # type: ignore[import-untyped, unused-ignore]

        half = (
            float(t.ppf(0.5 + CONFIDENCE_LEVEL / 2, len(differences) - 1))
            * std
            / len(differences) ** 0.5
        )
        interval = [mean - half, mean + half]
    significant = interval is not None and not interval[0] <= 0 <= interval[1]
    return {
        "mean": mean,
        "std": std,
        "interval": interval,
        "level": CONFIDENCE_LEVEL,
        "paired": True,
        "significant": significant,
    }


def _std(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)
