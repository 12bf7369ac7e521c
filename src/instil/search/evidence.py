"""Statistics of the finalists: intervals, paired differences and Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instil.plan.statistics import paired_gain, summarize
from instil.search.arms import Arm
from instil.search.study import Results, Study

COMPARED = ("pseudo_labels", "alone")
"""Reference arms that every finalist is compared with."""
ALPHA = 0.05
SCORE_DIGITS = 9
"""Significant digits of a mean score that count: means of the same values in another order differ
in the last ones."""


def rounded(value: float, digits: int = SCORE_DIGITS) -> float:
    """Round to significant digits, so that values that differ by rounding errors are ties.

    Args:
        value: mean score, or a difference of two.
        digits: significant digits.

    Example:
        >>> rounded((0.1 + 0.2 + 0.3) / 3) == rounded((0.3 + 0.2 + 0.1) / 3) == 0.2
        True
    """
    return float(f"{value:.{digits}g}")


def mean_with_interval(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation, 95 % interval and values.

    Args:
        values: one value per seed.
    """
    # The interval of a mean is that of its differences from zero.
    interval = paired_gain(values, [0.0] * len(values))["interval"]
    return summarize(values) | {"interval": interval}


def compare_finalists(
    scores: Mapping[str, Sequence[float]], winner: str, higher_is_better: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Compare finalists on the test split, paired by seed.

    Args:
        scores: test scores of each arm, in the order of the seeds.
        winner: arm that the validation data chose.
        higher_is_better: direction of the metric.

    Returns:
        For each arm its differences from the reference arms (``paired_gain``, with ``p`` corrected
        by Holm over all these differences). Second, the arms that the data do not show to be worse
        than the winner.
    """
    gains: dict[tuple[str, str], dict[str, Any]] = {}
    for name, values in scores.items():
        # Each student has reference arms of its own.
        _, separator, student = name.partition("@")
        for reference in COMPARED:
            own = f"{reference}{separator}{student}"
            if own in scores and own != name:
                control = scores[own]
                gains[name, reference] = paired_gain(values, control, higher_is_better)
    _correct(list(gains.values()))
    rivals = _gains_over_rivals(scores, winner, higher_is_better)
    differences: dict[str, dict[str, Any]] = {name: {} for name in scores}
    for (name, reference), gain in gains.items():
        differences[name][reference] = gain
    worse = [name for name, gain in rivals.items() if gain["significant"] and gain["mean"] > 0]
    return differences, [name for name in scores if name not in worse]


def better_on_test(
    scores: Mapping[str, Sequence[float]], winner: str, higher_is_better: bool
) -> list[str]:
    """Return the arms whose test scores are better than those of the winner outside the noise.

    Args:
        scores: test scores of each arm, in the order of the seeds.
        winner: arm that the validation data chose.
        higher_is_better: direction of the metric.

    Example:
        >>> better_on_test({"kd": [0.5, 0.6, 0.7], "dkd": [0.71, 0.8, 0.89]}, "kd", True)
        ['dkd']
    """
    rivals = _gains_over_rivals(scores, winner, higher_is_better)
    return [name for name, gain in rivals.items() if gain["significant"] and gain["mean"] < 0]


def _gains_over_rivals(
    scores: Mapping[str, Sequence[float]], winner: str, higher_is_better: bool
) -> dict[str, dict[str, Any]]:
    """Return the gain of the winner over each other arm, with p-values of Holm."""
    rivals = {
        name: paired_gain(scores[winner], values, higher_is_better)
        for name, values in scores.items()
        if name != winner
    }
    _correct(list(rivals.values()))
    return rivals


def _correct(gains: Sequence[dict[str, Any]]) -> None:
    """Replace p-values by those of Holm, and set ``significant``."""
    tested = [gain for gain in gains if gain["p"] is not None]
    for gain, p in zip(tested, holm([gain["p"] for gain in tested]), strict=True):
        gain["p"] = p
        gain["significant"] = p < ALPHA


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method (Holm 1979).

    Args:
        p_values: p-values of one family of tests.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def full_trainings(study: Study, arm: Arm) -> Results:
    """Return the complete trials of an arm with all steps, which are as good as the finals.

    Args:
        study: the search.
        arm: the arm.
    """
    settings = study.state.settings
    # The best of several options has a score that luck raised.
    if settings.has_options or settings.num_folds > 1:
        return []
    return [
        result
        for result in study.results
        if result["arm"] == arm.name
        and result["round"] >= 0
        and result["num_steps"] == study.state.schedule.final_steps
        and result["status"] == "complete"
    ]


def failure_notes(finalists: Sequence[Arm], finals: Results) -> list[str]:
    """Return a sentence for each finalist that has no scores, since final trainings failed.

    Args:
        finalists: arms that were trained with new seeds.
        finals: results of these trainings.
    """
    notes = []
    for arm in finalists:
        own = [result for result in finals if result["arm"] == arm.name]
        num_failed = sum(result["status"] != "complete" for result in own)
        if num_failed:
            notes.append(
                f"{arm.name} is not compared: {num_failed} of {len(own)} final trainings failed"
            )
    return notes
