"""Results of trials without numbers that JSON does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_result(result: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the result of a trial with finite numbers only.

    Further metrics and points of the curve are left out if they are NaN or infinite. A trial
    whose headline metric is not finite has failed.

    Args:
        result: result of a trial.
        metric: headline metric.

    Example:
        >>> result = {"status": "complete", "score": float("inf"), "curve": []}
        >>> finite_result(result, "perplexity")["error"]
        'perplexity is inf. Expected a finite value'
    """
    whole = dict(result)
    whole["curve"] = [point for point in whole["curve"] if math.isfinite(point[1])]
    values = [whole["score"]]
    for split in ("validation", "test"):
        if split in whole:
            values.append(whole[split][metric])
            whole[split] = _finite(whole[split])
    if whole.get("int8"):
        whole["int8"] = _finite_splits(whole["int8"], metric)
    wrong = [value for value in values if value is not None and not math.isfinite(value)]
    if not wrong:
        return whole
    error = f"{metric} is {wrong[0]}. Expected a finite value"
    failed = {key: whole[key] for key in whole if key not in ("validation", "test", "int8")}
    return failed | {"status": "failed", "score": None, "error": error}


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def _finite_splits(splits: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """Return the metrics of a quantised student; None if its headline metric is not finite."""
    finite = {split: _finite(metrics) for split, metrics in splits.items()}
    return finite if all(metric in metrics for metrics in finite.values()) else None
