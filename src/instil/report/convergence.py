"""Check whether trainings were still improving at their end."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from instil.report.epochs import stage_of, unique_rows
from instil.report.names import display_name, enumeration
from instil.report.record import Record, finite

LAST = 0.75
"""Share of a training after which its last part begins, by the sum of the learning rates."""
FEWEST_EVALUATIONS = 3
"""Evaluations in the last part below which a training is not judged."""
SMALLEST_SHARE = 0.1
"""Share of the whole improvement that the last part of an unconverged training has at least."""
NOISE_FACTOR = 3.0
"""Standard errors that the improvement of the last part exceeds."""
ANNEALED = 0.5
"""Learning rate at the end, as a share of the largest one, below which a training is annealed."""
ANNEALING_FACTOR = 1.5
"""Improvement of the last part, as a multiple of that of the part of equal length before, from
which it comes from the falling learning rate."""

Array = npt.NDArray[np.float64]


def convergence_sentence(record: Record) -> str:
    """Return a sentence on the students that were not converged; empty if all were.

    Args:
        record: run with the rows of ``metrics.jsonl``.
    """
    arms = [arm for arm in record.arms if arm != "teacher" and is_improving(record, arm)]
    if not arms:
        return ""
    nouns = {arm: record.arm_noun(arm) for arm in arms} | {"distilled": "the distilled student"}
    names = enumeration([nouns[arm] for arm in arms])
    return (
        f"The training had not converged for {names}: the validation {display_name(record.metric)} "
        "still improved in its last part by more than its noise. A comparison of methods at this "
        f"length may turn with more steps. Raise {_length_key(record)}"
    )


def is_improving(record: Record, arm: str) -> bool:
    """Whether the headline metric of an arm still improved in the last part of its training.

    The last part has a quarter of the sum of the learning rates: under a cosine schedule, the last
    quarter of the steps hardly changes a student. A line is fitted to the evaluations of this part
    for each seed. The mean improvement over the seeds must exceed three standard errors, and a
    tenth of the improvement since the first evaluation. Under a falling learning rate, a part that
    improves much more than the part before is the effect of the learning rate.

    Args:
        record: run with the rows of ``metrics.jsonl``.
        arm: name of a training.
    """
    sign = -1.0 if record.lower_is_better else 1.0
    curves = [_Curve(rows, record.metric, sign) for rows in _rows_of_seeds(record, arm)]
    if not curves or any(curve.num_last < FEWEST_EVALUATIONS for curve in curves):
        return False
    trends = [curve.trend() for curve in curves]
    improvement = float(np.mean([trend for trend, _ in trends]))
    error = sum(error**2 for _, error in trends) ** 0.5 / len(trends)
    total = float(np.mean([curve.between(0.0, 1.0) for curve in curves]))
    if improvement <= max(NOISE_FACTOR * error, SMALLEST_SHARE * total):
        return False
    if not all(curve.is_annealed for curve in curves):
        return True
    before = float(np.mean([curve.between(2 * LAST - 1, LAST) for curve in curves]))
    last = float(np.mean([curve.between(LAST, 1.0) for curve in curves]))
    return last <= ANNEALING_FACTOR * before


class _Curve:
    """Validation scores of one training over the share of its sum of learning rates."""

    def __init__(self, rows: list[dict[str, Any]], metric: str, sign: float) -> None:
        steps = np.array([0.0, *(row["step"] for row in rows)])
        rates = np.array([float(row.get("lr") or 0.0) for row in rows])
        # Without learning rates, as of some schemes, all steps count the same.
        weights = rates if rates.any() else np.ones_like(rates)
        self.is_annealed = bool(weights[-1] < ANNEALED * weights.max())
        # A record has the learning rate at its end; the mean of both ends is that of its steps.
        means = (weights + np.array([weights[0], *weights[:-1]])) / 2
        done = np.cumsum(means * np.diff(steps))
        values = [finite(row["validation"].get(metric)) for row in rows]
        has_value = np.array([value is not None for value in values])
        self._done: Array = (done / done[-1])[has_value]
        self._score: Array = sign * np.array([value for value in values if value is not None])
        self._is_last = self._done >= LAST
        self.num_last = int(self._is_last.sum())

    def between(self, start: float, end: float) -> float:
        """Return the improvement between two shares of the training."""
        low, high = np.interp([start, end], self._done, self._score)
        return float(high - low)

    def trend(self) -> tuple[float, float]:
        """Return the improvement of a line through the last part, and its standard error."""
        done, score = self._done[self._is_last], self._score[self._is_last]
        centred = done - done.mean()
        spread = float((centred**2).sum())
        if not spread:
            return 0.0, 0.0
        slope = float((centred * score).sum()) / spread
        residuals = score - score.mean() - slope * centred
        error = (float((residuals**2).sum()) / (len(done) - 2) / spread) ** 0.5
        return slope * (1 - LAST), error * (1 - LAST)


def _rows_of_seeds(record: Record, arm: str) -> list[list[dict[str, Any]]]:
    """Return the rows of the last stage of an arm with an evaluation, for each seed."""
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    own = unique_rows(record, arm, "step")
    last = max(map(stage_of, own), default=0)
    for row in sorted(own, key=lambda row: float(row["step"])):
        if stage_of(row) == last and row["step"] and isinstance(row.get("validation"), dict):
            rows[row.get("seed")].append(row)
    return list(rows.values())


def _length_key(record: Record) -> str:
    """Return the recipe key of the length of the training."""
    try:
        train = (yaml.safe_load(record.recipe) or {}).get("train") or {}
        return "train.steps" if train.get("steps") else "train.epochs"
    except (yaml.YAMLError, AttributeError):  # the report also reads damaged recipes
        return "train.steps or train.epochs"
