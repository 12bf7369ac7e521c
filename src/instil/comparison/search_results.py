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
    training_text,
)
from instil.comparison.results import Axes, ResultKind, Setting, TrainedResult
from instil.comparison.settings import setting_of

REQUIRED = ("headline", "higher_is_better", "finalists", "final_seeds", "trials")
OWN_OBJECTIVES = "recipe"
"""Name of the arm with the objectives of the recipe."""


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
    setting = setting_of(recipe, outcome["headline"], outcome["higher_is_better"], values)
    results = [_result(folder, row, outcome, recipe, setting) for row in outcome["finalists"]]
    teacher = outcome.get("teacher")
    if teacher is not None and teacher.get("score") is not None:
        results.append(_teacher(folder, teacher, outcome, recipe, setting))
    return results


def _result(
    folder: Path,
    row: Mapping[str, Any],
    outcome: Mapping[str, Any],
    recipe: Mapping[str, Any],
    setting: Setting,
) -> TrainedResult:
    is_winner = row["name"] == outcome.get("winner")
    # A search over students has one method, and its rows are the files of the students.
    is_student = "format" in row
    is_own = is_student or row["name"] == OWN_OBJECTIVES
    is_baseline = row.get("kind") == "baseline"
    kind: ResultKind = "baseline" if is_baseline else "method"
    return TrainedResult(
        method=method_name(recipe) if is_own else row["name"],
        kind=kind,
        setting=setting,
        student=row["name"] if is_student else network_text(recipe.get("student")),
        training=training_text(recipe),
        seeds=tuple(outcome["final_seeds"]),
        values=tuple(row["test"]["values"]),
        axes=Axes() if is_baseline else _axes(row, recipe, is_own),
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
        training=training_text(recipe),
        seeds=(outcome["final_seeds"][0],),
        values=(float(teacher["score"]),),
        axes=Axes(),
        folder=folder,
        recipe="recipe.yaml",
        origin="search",
        parameters=teacher.get("parameters"),
    )


def _axes(row: Mapping[str, Any], recipe: Mapping[str, Any], is_own: bool) -> Axes:
    if is_own:
        return survey_axes(*method_parts(recipe))
    if row.get("kind") == "scheme":
        return survey_axes((), [row["name"]])
    return survey_axes([row["name"]], ["offline"])


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
