"""Outcome of a search: ``search.json``, ``search.html`` and the recipe of the winner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instil import catalogue
from instil import recipe as recipes
from instil.experiment.data_checks import validation_notes
from instil.files.atomic import atomic
from instil.files.json_files import write_json
from instil.recipe import build
from instil.recipe.sections import Recipe
from instil.search.arms import Arm, arm_recipe
from instil.search.evidence import (
    better_on_test,
    compare_finalists,
    failure_notes,
    full_trainings,
    mean_with_interval,
    rounded,
)
from instil.search.page import write_page
from instil.search.search_facts import search_facts
from instil.search.student_outcome import chance_notes, student_facts, student_rows
from instil.search.study import Results, Study
from instil.search.teacher_outcome import teacher_facts

BEST = "best.yaml"
OUTCOME = "search.json"


def write_outcome(study: Study, finalists: Sequence[Arm], finals: Results) -> dict[str, Any]:
    """Write and return the outcome of a search.

    Args:
        study: the search.
        finalists: arms that were trained with new seeds.
        finals: results of these trainings.

    Raises:
        RuntimeError: if all of them failed.
    """
    experiment = study.trainer.experiment
    metric = experiment.task.headline
    failures = failure_notes(finalists, finals)
    make_rows = student_rows if study.state.settings.has_students else _method_rows
    rows = make_rows(study, finalists, finals, metric)
    if not rows:
        text = ". ".join(failures)
        raise RuntimeError(f"search: no finalist is left. {text}. See trials/ for the errors")
    ranked = rank_rows(rows, study.higher_is_better)
    names = {arm.name: arm for arm in finalists}
    teacher = study.trainer.evaluate_teacher(_recipe_of_teacher(study, names.get(ranked[0])))
    facts = _facts_of_subject(study, rows, ranked[0], teacher)
    winner = rows[facts["winner"]]
    state = study.state
    trials = study.earlier + study.results
    outcome = {
        **search_facts(study),
        **facts,
        **_compare(rows, ranked, winner["name"], study.higher_is_better),
        "finalists": [rows[name] for name in ranked],
        "teacher": teacher,
        "student_parameters": winner["parameters"],
        "final_seeds": study.final_seeds,
        "schedule": state.schedule.to_json(),
        "steps": count_steps(trials, state.arms),
        "seconds": round(sum(result["seconds"] for result in trials), 3),
        "notes": [*_notes(study), *failures, *chance_notes(study, teacher)],
        "arms": [arm.to_json() for arm in state.arms],
        "refused": state.refused,
        "signals": state.signals,
        "trials": trials,
    }
    write_json(study.trainer.folder / OUTCOME, outcome)
    # Both files of a student have the recipe of one arm.
    arm_name = winner["arm"] if "arm" in winner else winner["name"]
    _write_recipe(study, names[arm_name], outcome)
    return outcome


def _recipe_of_teacher(study: Study, winner: Arm | None) -> Recipe | None:
    """Return the recipe whose teacher the winner learned from; None for that of the search."""
    if winner is None or winner.kind != "teacher":
        return None
    return build(arm_recipe(study.base, winner, {}))


def _notes(study: Study) -> list[str]:
    """Return the sentences on data, budget and rounds."""
    notes = [*study.state.schedule.notes, *study.notes, *time_notes(study)]
    return [*validation_notes(study.trainer.experiment), *notes]


def time_notes(study: Study) -> list[str]:
    """Return a sentence if the trainings took longer than the budget."""
    limit = study.state.settings.max_seconds
    seconds = sum(result["seconds"] for result in study.results) / study.state.num_jobs
    if limit is None or seconds <= limit:
        return []
    return [
        f"The trainings took {seconds:.0f} s, more than the budget of {limit:.0f} s. The budget "
        "counts optimizer steps by their measured time, and evaluations are not part of it"
    ]


def rank_rows(rows: dict[str, dict[str, Any]], higher_is_better: bool) -> list[str]:
    """Return the names of rows by their mean validation score, the best first.

    Of equal scores, those of reference arms come first: a method that is not better than a simple
    baseline does not replace it.

    Args:
        rows: finalists by name.
        higher_is_better: direction of the metric.
    """
    sign = 1 if higher_is_better else -1

    def key(name: str) -> tuple[float, bool]:
        mean = rounded(rows[name]["validation"]["mean"])
        return -sign * mean, not rows[name]["is_reference"]

    return sorted(rows, key=key)


def _compare(
    rows: dict[str, dict[str, Any]], ranked: Sequence[str], winner: str, higher_is_better: bool
) -> dict[str, list[str]]:
    """Add the differences to the rows; return the best set and the arms with better test data."""
    scores = {name: rows[name]["test"]["values"] for name in ranked}
    differences, best = compare_finalists(scores, winner, higher_is_better)
    for name in ranked:
        rows[name]["differences"] = differences[name]
        rows[name]["is_best"] = name in best
    return {"best": best, "better_on_test": better_on_test(scores, winner, higher_is_better)}


def _write_recipe(study: Study, winner: Arm, outcome: dict[str, Any]) -> None:
    """Write the recipe of the winner and the page, which shows it."""
    recipe_text = best_recipe(study, winner)
    with atomic(study.trainer.folder / BEST) as temporary:
        temporary.write_text(recipe_text, encoding="utf-8")
    write_page(outcome, recipe_text, study.trainer.folder)


def _facts_of_subject(
    study: Study, rows: dict[str, dict[str, Any]], first: str, teacher: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the winner, and what only searches over students or teachers report."""
    settings = study.state.settings
    if settings.has_students:
        return student_facts(study, rows, teacher)
    facts: dict[str, Any] = {"winner": first}
    return facts | ({"teachers": teacher_facts(study, rows)} if settings.has_teachers else {})


def best_recipe(study: Study, winner: Arm) -> str:
    """Return the recipe of the winner as YAML, with the seeds, length and baselines of the search.

    A baseline that wins is the exported arm; the student with the labels of the recipe is then the
    distilled one.
    """
    own = study.trainer.experiment.recipe
    data = arm_recipe(study.base, winner, study.best_params(winner))
    # The students of a search over students and methods share the names of their baselines.
    references = dict.fromkeys(arm.method for arm in study.state.arms if arm.kind == "baseline")
    # The costs of a student are those of its ONNX file.
    is_exported = own.export or winner.costs.get("runtime") == "onnxruntime"
    # A search over students alone has no arms of baselines, but its recipe has baselines.
    baselines = list(references) or own.baselines
    data |= {"baselines": baselines, "export": is_exported, "name": f"{own.name}-best"}
    if winner.kind == "baseline":
        data |= own.model_dump(mode="json", include={"teacher", "store", "ensemble"})
        data["exported_arm"] = winner.method
    data["seeds"] = study.final_seeds
    return recipes.to_yaml(build(data))


def _method_rows(
    study: Study, finalists: Sequence[Arm], finals: Results, metric: str
) -> dict[str, dict[str, Any]]:
    """Return scores and options of the finalists by name."""
    rows = {arm.name: _row(study, arm, finals, metric) for arm in finalists}
    return {name: row for name, row in rows.items() if row is not None}


def _row(study: Study, arm: Arm, finals: Results, metric: str) -> dict[str, Any] | None:
    """Return scores and options of a finalist; None if one of its trainings failed."""
    own = [result for result in finals if result["arm"] == arm.name]
    if any(result["status"] != "complete" for result in own):
        return None
    # Trainings of the last round with all steps are further seeds.
    validation = [result["validation"][metric] for result in [*own, *full_trainings(study, arm)]]
    return {
        "name": arm.name,
        "kind": arm.kind,
        "is_reference": arm.is_reference,
        "params": study.best_params(arm),
        "validation": mean_with_interval(validation),
        "test": mean_with_interval([result["test"][metric] for result in own]),
        "further_test": _further_metrics(own, metric),
        "parameters": own[0].get("parameters"),
    }


def _further_metrics(own: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return the test scores of a finalist in metrics other than the headline."""
    names = [name for name in own[0]["test"] if name not in (metric, "agreement")]
    return {
        name: mean_with_interval([result["test"][name] for result in own])
        for name in names
        if all(name in result["test"] for result in own)
    }


def count_steps(trials: Results, arms: Sequence[Arm]) -> int:
    """Return the optimizer steps of all trials.

    Args:
        trials: results of the trials.
        arms: arms of the search; those without a training, as ``random_init``, have no steps.
    """
    baselines = [arm for arm in arms if arm.kind == "baseline"]
    untrained = {arm.name for arm in baselines if not catalogue.find("baseline", arm.method).trains}
    return sum(_steps(result) for result in trials if result["arm"] not in untrained)


def _steps(result: dict[str, Any]) -> int:
    """Return the optimizer steps that a trial did."""
    if result["status"] == "stopped":
        return int(result["curve"][-1][0])
    # A failed trial of an earlier version has no such entry.
    if "steps_done" in result:
        return int(result["steps_done"])
    num_steps: int = result["num_steps"] * result.get("num_folds", 1)
    return num_steps
