"""Results of the finalists of a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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

REQUIRED = ("headline", "higher_is_better", "finalists", "final_seeds", "trials")
OWN_OBJECTIVES = "recipe"
"""Name of the arm with objectives and student of the recipe."""


def search_results(
    folder: Path, outcome: Mapping[str, Any], recipe: Mapping[str, Any]
) -> list[TrainedResult]:
    """Return one result for each finalist of a search.

    Args:
        folder: folder of the search.
        outcome: content of ``search.json``.
        recipe: recipe of the search as plain data.

    Raises:
        ValueError: if the outcome has another format.
    """
    missing = [key for key in REQUIRED if key not in outcome]
    if missing:
        raise ValueError(
            f"RUN: {folder}/search.json has another format. Expected the keys "
            f"{', '.join(REQUIRED)}, got none for {', '.join(missing)}. Search again with this "
            "version"
        )
    values: list[float] = []
    for row in outcome["finalists"]:
        values += row["test"]["values"]
    data = outcome.get("data", {})
    setting = setting_of(
        recipe,
        outcome["headline"],
        outcome["higher_is_better"],
        values,
        _is_number(outcome),
        data.get("test"),
        data.get("test_digest"),
    )
    results = [_result(folder, row, outcome, recipe, setting) for row in outcome["finalists"]]
    teacher = outcome.get("teacher")
    if teacher is not None and teacher.get("score") is not None:
        results.append(_teacher(folder, teacher, outcome, recipe, setting))
    return results


def _is_number(outcome: Mapping[str, Any]) -> bool:
    """Whether the headline metric is one that is not shown in percent."""
    facts = outcome.get("metrics", {}).get(outcome["headline"], {})
    return facts.get("is_fraction") is False


def _result(
    folder: Path,
    row: Mapping[str, Any],
    outcome: Mapping[str, Any],
    recipe: Mapping[str, Any],
    setting: Setting,
) -> TrainedResult:
    is_winner = row["name"] == outcome.get("winner")
    method, student = _method_and_student(row)
    is_own = method == OWN_OBJECTIVES or row.get("kind") == "teacher"
    is_baseline = row.get("kind") == "baseline"
    kind: ResultKind = "baseline" if is_baseline else "method"
    name = method_name(recipe) if is_own else method
    if row.get("kind") == "teacher":
        name = f"{name}, teacher {row['name']}"
    return TrainedResult(
        method=name,
        kind=kind,
        setting=setting,
        student=_student_text(student, recipe),
        training=training_text(recipe),
        seeds=tuple(outcome["final_seeds"]),
        values=tuple(row["test"]["values"]),
        axes=Axes() if is_baseline else _axes(row, method, recipe, is_own),
        folder=folder,
        recipe="best.yaml" if is_winner else "recipe.yaml",
        origin="search",
        curve=_curve(outcome, row.get("arm", row["name"])),
        parameters=row.get("parameters"),
        num_bytes=row.get("bytes"),
        latency=row.get("latency_ms"),
    )


def _teacher(
    folder: Path,
    teacher: Mapping[str, Any],
    outcome: Mapping[str, Any],
    recipe: Mapping[str, Any],
    setting: Setting,
) -> TrainedResult:
    return TrainedResult(
        method="teacher",
        kind="teacher",
        setting=setting,
        student=network_text(recipe.get("teacher")),
        training=teacher_training_text(recipe),
        seeds=(outcome["final_seeds"][0],),
        values=(float(teacher["score"]),),
        axes=Axes(),
        folder=folder,
        recipe="recipe.yaml",
        origin="search",
        parameters=teacher.get("parameters"),
    )


def _method_and_student(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the arm of the method of a row, and its student; ``recipe`` is that of the recipe.

    The rows of a search over students are their files. Only those of a search over students and
    methods have both names: ``METHOD@STUDENT``.
    """
    if "format" not in row:
        return row["name"], OWN_OBJECTIVES
    method, separator, student = row["name"].partition("@")
    return (method, student) if separator else (OWN_OBJECTIVES, row["name"])


def _student_text(student: str, recipe: Mapping[str, Any]) -> str:
    name, separator, file = student.partition(" ")
    if name != OWN_OBJECTIVES:
        return student
    return network_text(recipe.get("student")) + separator + file


def _axes(row: Mapping[str, Any], method: str, recipe: Mapping[str, Any], is_own: bool) -> Axes:
    if is_own:
        return survey_axes(*method_parts(recipe))
    if row.get("kind") == "scheme":
        return survey_axes((), [method])
    return survey_axes([method], ["offline"])


def _curve(outcome: Mapping[str, Any], name: str) -> tuple[tuple[int, float], ...]:
    """Return the validation curve of the best finished trial of an arm before the finals."""
    sign = 1 if outcome["higher_is_better"] else -1
    trials = [
        trial
        for trial in outcome["trials"]
        if trial["arm"] == name and trial["status"] == "complete" and trial["curve"]
    ]
    if not trials:
        return ()
    best = max(trials, key=lambda trial: (trial["round"], sign * trial["score"]))
    return tuple((int(step), float(score)) for step, score in best["curve"])
