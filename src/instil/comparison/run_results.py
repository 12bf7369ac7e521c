"""Results of the arms of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from instil.comparison.methods import (
    method_name,
    method_parts,
    network_text,
    survey_axes,
    teacher_training_text,
    training_text,
)
from instil.comparison.results import Axes, ResultKind, Setting, TrainedResult
from instil.comparison.settings import setting_of
from instil.report.record import Record

REQUIRED = ("task", "headline", "seeds")


def run_results(record: Record, recipe: Mapping[str, Any]) -> list[TrainedResult]:
    """Return one result for each trained arm of a run.

    Args:
        record: files of the run.
        recipe: resolved recipe as plain data.

    Raises:
        ValueError: if the run is not complete or its result has another format.
    """
    _check_result(record)
    metric = record.metric
    setting = _setting(record, recipe)
    results = []
    for arm in record.arms:
        scores = record.values(arm, metric)
        if not scores or None in scores:
            continue
        # A teacher that all seeds share has one value.
        seeds = record.seeds[: len(scores)]
        is_teacher = arm == "teacher"
        cost = record.cost_path(arm)
        results.append(
            TrainedResult(
                method=_method(arm, recipe),
                kind=_kind(arm),
                setting=setting,
                student=network_text(recipe.get("teacher" if is_teacher else "student")),
                training=teacher_training_text(recipe) if is_teacher else training_text(recipe),
                seeds=tuple(seeds),
                values=tuple(score for score in scores if score is not None),
                axes=_axes(arm, recipe),
                folder=record.folder,
                recipe="recipe.yaml",
                origin="run",
                curve=_validation_curve(record, arm, metric),
                parameters=record.get_number(*cost, "parameters"),
                num_bytes=record.get_number(*cost, "bytes"),
                latency=record.get_number(*cost, "latency", "median_ms"),
            )
        )
    return results


def _setting(record: Record, recipe: Mapping[str, Any]) -> Setting:
    metric = record.metric
    values: list[float] = []
    for arm in record.arms:
        values += [value for value in record.values(arm, metric) if value is not None]
    num_test = record.get_number("data", "test")
    return setting_of(
        recipe,
        metric,
        not record.lower_is_better,
        values,
        record.is_number(metric),
        None if num_test is None else int(num_test),
        record.get("data", "test_digest"),
    )


def _check_result(record: Record) -> None:
    missing = [key for key in REQUIRED if not record.result.get(key)]
    if missing:
        raise ValueError(
            f"RUN: {record.folder}/result.json has another format. Expected the keys "
            f"{', '.join(REQUIRED)}, got none for {', '.join(missing)}. Run the recipe again with "
            "this version"
        )
    status = record.get("status")
    if status != "complete":
        raise ValueError(
            f"RUN: {record.folder} is not finished. Expected the status complete, got {status}. "
            f"Finish it with: instil run --resume {record.folder}"
        )


def _method(arm: str, recipe: Mapping[str, Any]) -> str:
    return method_name(recipe) if arm == "distilled" else arm


def _kind(arm: str) -> ResultKind:
    if arm == "teacher":
        return "teacher"
    return "method" if arm == "distilled" else "baseline"


def _axes(arm: str, recipe: Mapping[str, Any]) -> Axes:
    return survey_axes(*method_parts(recipe)) if arm == "distilled" else Axes()


def _validation_curve(record: Record, arm: str, metric: str) -> tuple[tuple[int, float], ...]:
    """Return the mean validation score by step, in the last stage of an arm."""
    rows = [row for row in record.metrics if row.get("arm") == arm and row.get("validation")]
    last_stage = max((row.get("stage") or 0 for row in rows), default=0)
    by_step: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        score = row["validation"].get(metric)
        if (row.get("stage") or 0) == last_stage and score is not None:
            by_step[int(row.get("step") or 0)].append(float(score))
    most = max(map(len, by_step.values()), default=0)
    # A step that some seeds did not reach has a mean over other seeds than the rest.
    return tuple(
        (step, sum(scores) / len(scores))
        for step, scores in sorted(by_step.items())
        if len(scores) == most
    )
