"""Soft targets, pseudo-labels and labels alone for small tree ensembles, on the cut of diamonds.

python benchmarks/trees.py SOURCES [--work FOLDER]

SOURCES has ``diamonds.csv`` of the R package ggplot2 (MIT licence). The teacher is fitted on 20,000
rows. The student has 600 other rows, 200 of them with a label. All arms of a student have the same
number of trees. The limit of their size is one of three values: each arm has the one with the best
mean accuracy on validation rows over two seeds. The test rows are read with this choice and five
new seeds. Writes ``trees.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from rich.console import Console

from instil.files.json_files import write_json
from instil.plan.run import run
from instil.plan.statistics import paired_gain, summarize
from instil.recipe import build

RESULT = Path(__file__).with_name("trees.json")
PARTS = {"train": 600, "validation": 2000, "test": 5000, "teacher": 20_000}
NUM_LABELED = 200
SEARCH_SEEDS = [100, 101]
FINAL_SEEDS = [0, 1, 2, 3, 4]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "soft targets": {"kd": {"temperature": 1}},
    "soft targets and labels": {"kd": {"temperature": 1}, "cross_entropy": {}},
}
BASELINES = {"alone": "student alone", "pseudo_labels": "pseudo-labels"}
STUDENTS: dict[str, dict[str, Any]] = {
    "one tree": {"model": "sklearn:DecisionTreeClassifier", "size": "max_depth"},
    "forest of 10 trees": {
        "model": "sklearn:RandomForestClassifier",
        "size": "max_depth",
        "options": {"n_estimators": 10, "max_features": 0.5, "bootstrap": False},
    },
    "10 rounds of boosting": {
        "model": "sklearn:HistGradientBoostingClassifier",
        "size": "max_leaf_nodes",
        "options": {"max_iter": 10, "learning_rate": 0.3},
    },
}
"""Estimators, each with the name of the option that limits its size."""
SIZES = (4, 8, 12)
TEACHER = {
    "model": "sklearn:HistGradientBoostingClassifier",
    "options": {"learning_rate": 0.15, "max_iter": 60},
}


def write_tables(source: Path, folder: Path) -> None:
    """Write the rows of each part as a file."""
    with source.open(encoding="utf-8", newline="") as lines:
        header, *rows = list(csv.reader(lines))
    order = np.random.default_rng(0).permutation(len(rows))
    start = 0
    for name, count in PARTS.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header[1:])
            writer.writerows(rows[index][1:] for index in order[start : start + count])
        start += count


def recipe_of(
    folder: Path, student: dict[str, Any], size: int, objectives: dict[str, Any], seeds: list[int]
) -> dict[str, Any]:
    """Return the recipe of a student with a limit of its size."""
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")}
    table = {"name": "table", "label": "cut", "standardize": False}
    is_mixed = len(objectives) > 1
    return {
        "task": "tabular_classification",
        "data": table | {"files": files, "num_labeled": NUM_LABELED},
        "teacher": TEACHER
        | {"data": table | {"files": files | {"train": str(folder / "teacher.csv")}}},
        "student": {
            "model": student["model"],
            "options": student.get("options", {}) | {student["size"]: size},
        },
        "objectives": objectives,
        "baselines": [] if is_mixed else list(BASELINES),
        "seeds": seeds,
        "export": False,
    }


def arms_of(folder: Path, work: Path, student: dict[str, Any], size: int, seeds: list[int]) -> Any:
    """Run all arms with one limit; return the records of each arm and the result of a run."""
    records: dict[str, list[dict[str, Any]]] = {}
    result: dict[str, Any] = {}
    for title, objectives in OBJECTIVES.items():
        out = Path(tempfile.mkdtemp(dir=work)) / "run"
        recipe = build(recipe_of(folder, student, size, objectives, seeds))
        run(recipe, out, None, Console(quiet=True))
        names = {"distilled": title} | {name: BASELINES[name] for name in recipe.baselines}
        for name, arm in names.items():
            files = [out / "checkpoint" / f"{name}-{seed}.json" for seed in seeds]
            records[arm] = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        result = result or json.loads((out / "result.json").read_text(encoding="utf-8"))
    return records, result


def measure(folder: Path, work: Path, student: dict[str, Any]) -> dict[str, Any]:
    """Choose the limit of each arm, and return its test metrics with new seeds."""
    validation: dict[str, dict[int, float]] = {}
    for size in SIZES:
        records, _ = arms_of(folder, work, student, size, SEARCH_SEEDS)
        for arm, of_seeds in records.items():
            values = [record["validation"]["accuracy"] for record in of_seeds]
            validation.setdefault(arm, {})[size] = float(np.mean(values))
    chosen = {arm: max(scores, key=lambda size: scores[size]) for arm, scores in validation.items()}
    arms: dict[str, dict[str, Any]] = {}
    costs: dict[str, Any] = {}
    for size in sorted(set(chosen.values())):
        records, result = arms_of(folder, work, student, size, FINAL_SEEDS)
        for arm in (arm for arm, value in chosen.items() if value == size):
            test = [record["test"] for record in records[arm]]
            arms[arm] = {
                "size": size,
                "validation": validation[arm],
                **{key: summarize([row[key] for row in test]) for key in ("accuracy", "loss")},
            }
        if chosen["soft targets"] == size:
            costs = {name: result["cost"][name] for name in ("teacher", "student")}
            costs["teacher"]["accuracy"] = result["teacher"]["accuracy"]["mean"]
            costs["teacher"]["loss"] = result["teacher"]["loss"]["mean"]
    for arm in OBJECTIVES:
        arms[arm]["gains"] = {
            other: paired_gain(arms[arm]["accuracy"]["values"], arms[other]["accuracy"]["values"])
            for other in BASELINES.values()
        }
    return {"option": student["size"], "arms": arms, "costs": costs}


def main() -> None:
    """Measure all students."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, help="folder with diamonds.csv")
    parser.add_argument("--work", type=Path, help="folder of the tables and runs")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    write_tables(options.sources / "diamonds.csv", work)
    students = {name: measure(work, work, student) for name, student in STUDENTS.items()}
    result = {
        "parts": PARTS,
        "labels": NUM_LABELED,
        "seeds": FINAL_SEEDS,
        "sizes": SIZES,
        "scikit_learn": sklearn.__version__,
        "students": students,
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
