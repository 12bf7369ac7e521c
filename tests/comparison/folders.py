"""Synthetic run folders and search folders of several settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from instil.plan.statistics import paired_gain, summarize
from instil.search.evidence import mean_with_interval

LEVELS = {"alone": 0.80, "label_smoothing": 0.81, "pseudo_labels": 0.88}


def recipe_of(
    data: str = "digits", objective: str = "kd", width: int = 6, epochs: int = 20
) -> dict[str, Any]:
    """Return a resolved recipe with the sections that a comparison reads."""
    return {
        "name": objective,
        "task": {"name": "classification", "kind": "single"},
        "data": {"name": data, "num_labeled": 100, "batch_size": 64, "surrogate": None},
        "teacher": {"model": "cnn", "options": {"width": 32}},
        "student": {"model": "cnn", "options": {"width": width}},
        "scheme": {"type": "offline"},
        "objectives": {
            "cross_entropy": {"type": "cross_entropy"},
            objective: {"type": objective},
        },
        "train": {"epochs": epochs, "steps": None},
        "stages": [],
    }


def write_run(
    folder: Path,
    values: Sequence[float] = (0.90, 0.92, 0.91),
    baselines: Mapping[str, float] = LEVELS,
    metric: str = "accuracy",
    num_test: int = 500,
    test_digest: str | None = None,
    version: str = "0.1.0",
    **recipe: Any,
) -> Path:
    """Write a run folder; a baseline has a level, to which the seeds add -1, 0, 1, ... points."""
    folder.mkdir(parents=True)
    seeds = list(range(len(values)))
    arms = {
        name: [level + 0.01 * (seed - 1) for seed in seeds] for name, level in baselines.items()
    }
    arms["distilled"] = list(values)
    result: dict[str, Any] = {
        "status": "complete",
        "task": "classification",
        "data": {"test": num_test, "test_digest": test_digest},
        "seeds": seeds,
        "headline": metric,
        "higher_is_better": metric == "accuracy",
        "teacher": {metric: summarize([0.95])},
        **{name: {metric: summarize(scores)} for name, scores in arms.items()},
        "gain": paired_gain(values, arms["alone"]),
        "cost": {
            "teacher": {"parameters": 9000, "bytes": 36000, "latency": {"median_ms": 0.4}},
            "student": {"parameters": 1000, "bytes": 4000, "latency": {"median_ms": 0.1}},
        },
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(**recipe)))
    (folder / "environment.json").write_text(json.dumps({"versions": {"instil": version}}))
    rows = [
        {"arm": arm, "seed": seed, "step": step, "stage": 0, "validation": {metric: 0.01 * step}}
        for arm in ("alone", "distilled")
        for seed in seeds
        for step in (10, 20, 30)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def write_search(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    facts: Mapping[str, Any] | None = None,
    **recipe: Any,
) -> Path:
    """Write a search folder with finalists; the first one is the winner."""
    folder.mkdir(parents=True)
    finalists = [
        {
            "name": name,
            "kind": "baseline" if name in LEVELS else "objective",
            "test": mean_with_interval(values),
        }
        for name, values in scores.items()
    ]
    winner = next(iter(scores))
    trial = {
        "arm": winner,
        "round": 0,
        "status": "complete",
        "score": 0.9,
        "curve": [[10, 0.5], [20, 0.9]],
    }
    outcome = {
        "headline": "accuracy",
        "higher_is_better": True,
        "winner": winner,
        "finalists": finalists,
        "final_seeds": list(range(3, 3 + len(scores[winner]))),
        "trials": [trial],
        **(facts or {}),
    }
    (folder / "search.json").write_text(json.dumps(outcome))
    for name in ("recipe.yaml", "best.yaml"):
        (folder / name).write_text(yaml.safe_dump(recipe_of(**recipe)))
    return folder
