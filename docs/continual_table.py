"""Tables of ``benchmarks/continual.json``, and the marker that stands for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

RESULT = Path(__file__).parents[1] / "benchmarks" / "continual.json"
MARKER = "<!-- evidence of continual -->"
REFERENCES = ("fine-tuning", "replay", "replay, nearest mean")
MEMORY = {"replay", "replay, nearest mean", "iCaRL", "PODNet", "DER++"}


def insert_table(text: str) -> str:
    """Replace the marker by the tables of continual learning."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of all arms, and the matrix of accuracies of two of them."""
    measured: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    header = ("method", "old images", "accuracy (%)", "mean over stages (%)", "forgetting")
    header += tuple(f"gain over {name}" for name in REFERENCES)
    rows = []
    for name, entry in measured["arms"].items():
        cells = [name, str(measured["memory"]) if name in MEMORY else _all_or_none(name)]
        cells += [_spread(entry["accuracy"])]
        cells += [_mean(entry.get(key)) for key in ("incremental_accuracy", "forgetting")]
        cells += [gain_cell(entry["gains"].get(other)) for other in REFERENCES]
        rows.append(cells)
    return "\n".join([*table(header, rows), _note(measured), _matrix(measured)])


def _all_or_none(name: str) -> str:
    return "all" if name == "joint training" else "0"


def _spread(summary: dict[str, Any]) -> str:
    return f"{100 * summary['mean']:.1f} ± {100 * summary['std']:.1f}"


def _mean(summary: dict[str, Any] | None) -> str:
    return "" if summary is None else f"{100 * summary['mean']:.1f}"


def _note(measured: dict[str, Any]) -> str:
    return (
        f"Mean and standard deviation of {len(measured['seeds'])} new seeds; gains in accuracy "
        "with 95 % intervals, bold where they exclude zero. Each arm has the best of three "
        "settings by validation accuracy. `python benchmarks/continual.py FOLDER` computes the "
        "table.\n"
    )


def _matrix(measured: dict[str, Any]) -> str:
    """Accuracy on the digits of each stage, after each stage."""
    count = measured["stages"]
    header = ("method", "after stage", *(f"digits {2 * i}, {2 * i + 1}" for i in range(count)))
    rows = []
    for name in ("fine-tuning", "DER++"):
        for index, row in enumerate(measured["arms"][name]["after"]):
            values = ["" if value is None else f"{100 * value:.1f}" for value in row]
            rows.append([name, str(index), *values])
    return "\n".join(table(header, rows)) + "\n"
