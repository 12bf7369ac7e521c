"""Setting of a result: task, data and metric, as text that is equal for equal settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from instil.comparison.results import Setting
from instil.report.quantities import NUMBERS

TRAINING_KEYS = ("batch_size", "sampler", "workers", "augment", "surrogate", "exemplars")
"""Keys of ``data`` that change how a student is trained, not on which data it is evaluated."""


def setting_of(
    recipe: Mapping[str, Any],
    metric: str,
    higher_is_better: bool,
    values: Sequence[float],
    is_number: bool = False,
    num_test: int | None = None,
    test_digest: str | None = None,
) -> Setting:
    """Return the setting of a result.

    Args:
        recipe: resolved recipe as plain data.
        metric: headline metric.
        higher_is_better: direction of the metric.
        values: test scores; the metric is shown in percent if all are between -1 and 1.
        is_number: the run marks the metric as one that is not shown in percent.
        num_test: number of test samples, if it was recorded.
        test_digest: digest of the test samples with their labels, if it was recorded.
    """
    task = recipe.get("task")
    task_name = str(task.get("name", "?")) if isinstance(task, dict) else str(task)
    data = _compared_data(recipe["data"])
    stages = [_compared_data(stage.get("data") or {}) for stage in recipe.get("stages") or ()]
    parts = {
        "task": task,
        "data": data,
        "stages": [stage for stage in stages if stage],
        "metric": metric,
    }
    details = [f"{key} {_short(value)}" for key, value in data.items() if key != "name"]
    details += [f"{num_test} test samples"] if num_test else []
    return Setting(
        key=json.dumps(parts, sort_keys=True, default=str),
        task=task_name,
        data=str(data.get("name", "?")),
        details=", ".join(details),
        metric=metric,
        higher_is_better=higher_is_better,
        is_fraction=metric not in NUMBERS and not is_number and all(-1 <= v <= 1 for v in values),
        num_test=num_test,
        test_digest=test_digest,
    )


def _compared_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of ``data`` that define the samples; None is the default of a key."""
    return {
        key: value for key, value in data.items() if key not in TRAINING_KEYS and value is not None
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
