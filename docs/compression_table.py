"""Table of ``benchmarks/compression.json``, and the marker that stands for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

from instil.report.quantities import plain, size

RESULT = Path(__file__).parents[1] / "benchmarks" / "compression.json"
MARKER = "<!-- evidence of compression -->"
ARMS = ("labels", "pseudo-labels", "distilled")


def insert_table(text: str) -> str:
    """Replace the marker by the table of compressed students."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of accuracy and size of each student, with a note on the setting."""
    measured: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    header = ("student", "parameters", "file", "labels (%)", "pseudo-labels (%)", "distilled (%)")
    header += ("gain over labels", "gain over pseudo-labels")
    rows = []
    for name, student in measured["students"].items():
        cells = [name, f"{student['parameters']:,}", plain(size(student["bytes"]))]
        for arm in ARMS:
            accuracy = student["arms"][arm]
            cells.append(f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}")
        cells += [gain_cell(student["gains"][other]) for other in ("labels", "pseudo-labels")]
        rows.append(cells)
    return "\n".join([*table(header, rows), _note(measured)])


def _note(measured: dict[str, Any]) -> str:
    teacher = next(iter(measured["students"].values()))["teacher"]
    accuracy = f"{100 * teacher['accuracy']:.1f} %"
    return (
        f"Test accuracy, mean and standard deviation of {len(measured['seeds'])} seeds; gains "
        f"with 95 % intervals, bold where they exclude zero. Teacher: {accuracy}, "
        f"{teacher['parameters']:,} parameters. `python benchmarks/compression.py FOLDER` "
        "computes the table.\n"
    )
