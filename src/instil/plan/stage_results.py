"""Entries of a result about the test data of all stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instil.data.stream_splits import sample_count
from instil.experiment.experiment import Experiment
from instil.plan.gains import ArmsByName, gains_over
from instil.plan.stage_scores import StageTest, forgetting, row_means, stage_tests
from instil.plan.statistics import summarize


def stage_entries(experiment: Experiment, arms: ArmsByName) -> dict[str, Any]:
    """Return the entries of a result about the test data of all stages.

    Args:
        experiment: experiment of the whole recipe.
        arms: finished arms.

    Returns:
        ``secondary``, the names of the further metrics of an arm, and ``stages``: ``metric``;
        ``tests``, each with ``name``, ``stage``, ``data``, ``classes``, ``train`` and ``test``
        (numbers of samples); ``arms``: arm -> ``after`` (for each stage and test the metric over
        the seeds, or None), ``average`` (after each stage the mean over the tests so far) and
        ``forgetting`` (for each test); ``gains`` in the mean over all tests; ``higher_is_better``:
        direction of each metric of this section. Empty if all stages have the same data.
    """
    tests = stage_tests(experiment, experiment.stages)
    if not tests:
        return {}
    tables: dict[str, Any] = {}
    for name, of_seeds in arms.items():
        scores = [arm.details.get("stages", []) for arm in of_seeds]
        if not scores or not all(scores):
            continue
        losses = [forgetting(rows, tests, experiment.task.higher_is_better) for rows in scores]
        tables[name] = {
            "after": [_over_seeds(rows) for rows in zip(*scores, strict=True)],
            "average": _over_seeds([row_means(rows) for rows in scores]),
            "forgetting": _over_seeds(losses),
        }
    average = f"average_{experiment.task.headline}"
    incremental = f"incremental_{experiment.task.headline}"
    is_higher_better = experiment.task.higher_is_better
    stages = {
        "metric": experiment.task.headline,
        "tests": [_facts(test) for test in tests],
        "arms": tables,
        "gains": gains_over(experiment, arms, average),
        "higher_is_better": dict.fromkeys((average, incremental), is_higher_better)
        | {"forgetting": False},
    }
    secondary = [*experiment.task.secondary, average, incremental, "forgetting"]
    return {"stages": stages, "secondary": secondary}


def _over_seeds(rows: Sequence[Sequence[float | None]]) -> list[dict[str, Any] | None]:
    """Summarize each column over the seeds; None where a seed has no value."""
    summaries: list[dict[str, Any] | None] = []
    for column in zip(*rows, strict=True):
        values = [value for value in column if value is not None]
        summaries.append(summarize(values) if len(values) == len(column) else None)
    return summaries


def _facts(test: StageTest) -> dict[str, Any]:
    return {
        "name": test.name,
        "stage": test.first,
        "data": test.stage.recipe.data.name,
        "classes": list(test.learned),
        "train": sample_count(test.stage.splits.train),
        "test": len(test.samples),
    }
