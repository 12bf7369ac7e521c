"""Table of ``benchmarks/trees.json``, and the marker that stands for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

from instil.report.quantities import milliseconds, plain, size

RESULT = Path(__file__).parents[1] / "benchmarks" / "trees.json"
MARKER = "<!-- evidence of trees -->"
ARMS = ("student alone", "pseudo-labels", "soft targets", "soft targets and labels")


def insert_table(text: str) -> str:
    """Replace the marker by the table of tree ensembles."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of the arms of each student, with a note on the costs."""
    measured: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    header = ("student", "learns from", "limit", "test accuracy (%)", "test loss")
    header += ("gain over pseudo-labels", "gain over the student alone")
    rows = []
    for name, student in measured["students"].items():
        for arm in ARMS:
            entry = student["arms"][arm]
            accuracy = entry["accuracy"]
            cells = [name, arm, f"`{student['option']}: {entry['size']}`"]
            cells += [f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"]
            cells += [f"{entry['loss']['mean']:.2f}"]
            gains = entry.get("gains", {})
            cells += [gain_cell(gains.get(other)) for other in ("pseudo-labels", "student alone")]
            rows.append(cells)
    return "\n".join([*table(header, rows), _note(measured)])


def _note(measured: dict[str, Any]) -> str:
    students = measured["students"]
    teacher = next(iter(students.values()))["costs"]["teacher"]
    costs = [f"{name} {_cost(one['costs']['student'])}" for name, one in students.items()]
    return (
        f"Mean and standard deviation of {len(measured['seeds'])} new seeds; gains with 95 % "
        f"intervals, bold where they exclude zero. Each arm has the best of "
        f"{len(measured['sizes'])} limits on validation rows. Teacher: accuracy "
        f"{100 * teacher['accuracy']:.1f} %, loss {teacher['loss']:.2f}, {_cost(teacher)}. Size "
        f"and latency of one row with soft targets: {'; '.join(costs)}. `python "
        "benchmarks/trees.py FOLDER` computes the table.\n"
    )


def _cost(cost: dict[str, Any]) -> str:
    return f"{plain(size(cost['bytes']))} and {plain(milliseconds(cost['latency']['median_ms']))}"
