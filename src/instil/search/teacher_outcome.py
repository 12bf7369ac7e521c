"""Outcome of a search over teachers: correlation of the cheap signals with the outcome."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from instil.search.evidence import compare_finalists
from instil.search.study import Study

TITLES = {
    "teacher_score": "Validation",
    "entropy": "Entropy",
    "calibration_error": "Calibration error",
    "unsure_share": "Unsure",
    "teacher_agreement": "Agreement",
    "parameter_ratio": "Parameters",
    "operation_ratio": "Multiply-adds",
}
"""Cheap signals and their titles; sizes are multiples of the student's."""
MIN_TEACHERS = 5
"""Smallest number of teachers with a bootstrap interval."""
NUM_SAMPLES = 1000

Pairs = Sequence[tuple[float, float]]


def teacher_facts(study: Study, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the outcome of every teacher and the correlation of each cheap signal with it.

    The outcome is the mean test score of the student if all teachers are finalists. Otherwise it
    is the validation score of the first round, which has equal steps for all teachers.

    Args:
        study: the search.
        rows: rows of the finalists by name.

    Returns:
        ``best``: teachers that the test data cannot separate from the one with the best mean
        validation score, which is the first. ``outcome`` is ``test`` or ``validation``, and
        ``scores`` has one of each teacher. ``correlations`` has for each signal ``value``
        (Spearman, positive if larger values have better students), ``interval`` (bootstrap over
        teachers, None for fewer than five) and ``teachers`` (number).
    """
    names = [arm.name for arm in study.state.arms if not arm.is_reference]
    kind = "test" if set(names) <= set(rows) else "validation"
    scores = {name: rows[name]["test"]["mean"] for name in names if name in rows}
    if kind == "validation":
        scores = _first_scores(study, names)
    sign = 1 if study.higher_is_better else -1
    signals = study.state.signals["teachers"]
    correlations = {}
    for signal in TITLES:
        pairs = [
            (signals[name][signal], sign * score)
            for name, score in scores.items()
            if signals[name].get(signal) is not None
        ]
        correlations[signal] = correlation(pairs)
    return {
        "best": _best(study, rows, names),
        "outcome": kind,
        "scores": scores,
        "correlations": correlations,
    }


def _best(study: Study, rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the best teachers of the finalists, the one with the best validation score first."""
    sign = 1 if study.higher_is_better else -1
    finalists = [name for name in names if name in rows]
    finalists.sort(key=lambda name: -sign * rows[name]["validation"]["mean"])
    scores = {name: rows[name]["test"]["values"] for name in finalists}
    return compare_finalists(scores, finalists[0], study.higher_is_better)[1] if scores else []


def teacher_rows(outcome: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the cells of a table of teachers: signals, the student's score and correlations.

    Args:
        outcome: content of ``search.json``.
    """
    signals = outcome["signals"]["teachers"]
    facts = outcome["teachers"]
    rows = []
    for arm in outcome["arms"]:
        name = arm["name"]
        if name in signals:
            cells = {title: _cell(signals[name].get(key)) for key, title in TITLES.items()}
            student = _cell(facts["scores"].get(name))
            rows.append({"Teacher": name, **cells, f"Student, {facts['outcome']}": student})
    cells = {title: _signed(facts["correlations"][key]["value"]) for key, title in TITLES.items()}
    last = {"Teacher": "rank correlation", **cells, f"Student, {facts['outcome']}": ""}
    return [*rows, last]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _first_scores(study: Study, names: Sequence[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for result in study.results:
        is_first = result["round"] == 0 and result["score"] is not None
        if is_first and result["arm"] in names:
            scores.setdefault(result["arm"], result["score"])
    return scores


def correlation(pairs: Pairs) -> dict[str, Any]:
    """Return Spearman's rank correlation with a 95 % bootstrap interval.

    Args:
        pairs: signal and outcome of each teacher.

    Returns:
        ``value`` (None for fewer than three teachers or equal values), ``interval`` and
        ``teachers``.
    """
    value = _spearman(pairs)
    facts: dict[str, Any] = {"value": value, "interval": None, "teachers": len(pairs)}
    if value is None or len(pairs) < MIN_TEACHERS:
        return facts
    generator = random.Random(0)
    values = []
    for _ in range(NUM_SAMPLES):
        sample = _spearman(generator.choices(pairs, k=len(pairs)))
        if sample is not None:
            values.append(sample)
    values.sort()
    facts["interval"] = [values[int(0.025 * len(values))], values[int(0.975 * len(values))]]
    return facts


def _spearman(pairs: Pairs) -> float | None:
    """Return the correlation; None for fewer than three pairs or a constant."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped, unused-ignore]

    if len(pairs) < 3 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
