"""Outcome of a search over students: rows of all exported files, the choice and the frontiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instil.report.evidence import accuracy_is_near_chance
from instil.search.arms import Arm
from instil.search.evidence import mean_with_interval
from instil.search.frontier import comparable_sizes, frontier, hypervolume
from instil.search.limits import COSTS, formats, violation
from instil.search.study import Results, Study

Rows = dict[str, dict[str, Any]]


def student_rows(study: Study, finalists: Sequence[Arm], finals: Results, metric: str) -> Rows:
    """Return scores and costs of each exported file of each finalist, by name.

    A student whose training failed, or that could not be quantised, has no row.

    Args:
        study: the search.
        finalists: students that were trained with new seeds.
        finals: results of these trainings.
        metric: headline metric.
    """
    rows: Rows = {}
    for arm in finalists:
        own = [result for result in finals if result["arm"] == arm.name]
        if any(result["status"] != "complete" for result in own):
            continue
        for kind, costs in formats(arm.costs).items():
            scores = [result if kind == "float32" else result.get("int8") or {} for result in own]
            if not all(scores):
                continue
            name = arm.name if kind == "float32" else f"{arm.name} {kind}"
            rows[name] = {
                "name": name,
                "arm": arm.name,
                "format": kind,
                "kind": arm.kind,
                "is_reference": arm.is_reference,
                "params": study.best_params(arm),
                "validation": mean_with_interval([one["validation"][metric] for one in scores]),
                "test": mean_with_interval([one["test"][metric] for one in scores]),
                **{key: costs.get(key) for key in COSTS.values()},
                "violation": violation(costs, study.state.settings.limits),
            }
    return rows


def target_score(teacher_score: float | None, keep: float, higher_is_better: bool) -> float | None:
    """Return the score of a student that keeps a share of the teacher's quality.

    Args:
        teacher_score: score of the teacher; None if it has none.
        keep: share of the quality, at most 1.
        higher_is_better: direction of the metric. An error may rise by the share that is given up.

    Example:
        >>> target_score(0.9, 0.99, True), target_score(2.0, 0.99, False)
        (0.891, 2.02)
    """
    if teacher_score is None:
        return None
    sign = 1 if higher_is_better else -1
    return teacher_score - sign * (1 - keep) * abs(teacher_score)


def choose_student(rows: Rows, target: float | None, higher_is_better: bool) -> tuple[str, bool]:
    """Choose the smallest student within the limits whose mean validation score meets a target.

    Of files of equal size, see ``comparable_sizes``, the better one is chosen, then the faster one.

    Args:
        rows: result of ``student_rows``, not empty.
        target: score to meet; None: no student meets it.
        higher_is_better: direction of the metric.

    Returns:
        Name of the row, and whether it meets the target. If none does, it is the row within the
        limits with the best score, or of all rows if none is within the limits.
    """
    sign = 1 if higher_is_better else -1
    allowed = {name: row for name, row in rows.items() if not row["violation"]}
    shown = allowed or rows
    scores = {name: sign * row["validation"]["mean"] for name, row in shown.items()}
    # Without a file within the limits, none can be said to meet the target within them.
    if target is not None and allowed:
        good = [name for name, score in scores.items() if score >= sign * target]
        if good:
            # Such as the methods of one student: of equal sizes, the scores decide.
            sizes = comparable_sizes({name: rows[name]["bytes"] for name in good})
            latencies = {name: rows[name]["latency_ms"] for name in good}
            order = {name: (sizes[name], -scores[name], latencies[name]) for name in good}
            return min(good, key=lambda name: order[name]), True
    return max(scores, key=lambda name: scores[name]), False


def student_facts(study: Study, rows: Rows, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the winner, the share to keep, the limits and the frontiers of a search.

    Args:
        study: the search.
        rows: result of ``student_rows``.
        teacher: scores of the teacher.
    """
    settings = study.state.settings
    metric = study.trainer.experiment.task.headline
    higher = study.higher_is_better
    validation = None if teacher is None else teacher["validation"].get(metric)
    target = target_score(validation, settings.keep, higher)
    winner, is_met = choose_student(rows, target, higher)
    return {
        "winner": winner,
        "keep": {"share": settings.keep, "target": target, "is_met": is_met},
        "limits": settings.limits,
        "runtime": study.state.arms[0].costs["runtime"],
        "teacher_costs": study.state.teacher_costs,
        "frontiers": _frontiers(study, rows, teacher),
    }


def chance_notes(study: Study, teacher: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence if the teacher is hardly better than guessing.

    A student at chance level then keeps its quality. The level of chance is defined for the metric
    ``accuracy`` and one class per sample.

    Args:
        study: the search, over students or anything else.
        teacher: scores of the teacher.
    """
    settings, experiment = study.state.settings, study.trainer.experiment
    is_defined = experiment.task.headline == "accuracy" and experiment.task.kind == "single"
    if teacher is None or not settings.has_students or not is_defined:
        return []
    score, num_classes = teacher["validation"].get("accuracy"), len(experiment.splits.classes)
    if score is None or not accuracy_is_near_chance(score, num_classes):
        return []
    return [
        f"The teacher is hardly better than guessing (accuracy {score:.4g} with {num_classes} "
        f"classes), so that keeping {100 * settings.keep:.4g} % of it means nothing. Train the "
        "teacher longer, or set teacher.weights"
    ]


def _frontiers(
    study: Study, rows: Rows, teacher: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the frontier of each cost; a search of an earlier version has no memory."""
    return {
        name: _frontier(study, rows, key, teacher)
        for name, key in COSTS.items()
        if all(row[key] is not None for row in rows.values())
    }


def _frontier(
    study: Study, rows: Rows, cost: str, teacher: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the students of a frontier and its hypervolume.

    The validation scores decide which students belong to it. The hypervolume has the test scores
    of these students as shares of the teacher's, for each seed: a student with a lower test score
    than a smaller one stays, since the test data choose nothing.
    """
    sign = 1 if study.higher_is_better else -1
    costs = {name: row[cost] for name, row in rows.items()}
    means = {name: sign * row["validation"]["mean"] for name, row in rows.items()}
    names = frontier(means, costs)
    facts: dict[str, Any] = {"students": names, "hypervolume": None}
    reference = None if teacher is None else teacher["score"]
    if not reference or reference < 0:
        return facts
    largest = study.state.teacher_costs.get(cost) or max(costs.values())
    volumes = []
    for index in range(len(study.final_seeds)):
        shares = {}
        for name in names:
            score = rows[name]["test"]["values"][index]
            share = score / reference if study.higher_is_better else reference / max(score, 1e-12)
            shares[name] = max(0.0, share)
        volumes.append(hypervolume(names, shares, costs, largest))
    return facts | {"hypervolume": mean_with_interval(volumes), "largest_cost": largest}
