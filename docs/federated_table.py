"""Table of ``benchmarks/federated.json``, and the marker that stands for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

RESULT = Path(__file__).parents[1] / "benchmarks" / "federated.json"
MARKER = "<!-- evidence of federated -->"
REFERENCES = ("alone", "FedAvg")


def insert_table(text: str) -> str:
    """Replace the marker by the table of federated distillation."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of all arms."""
    measured: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    header = ("method", "tested", "numbers sent", "accuracy (%)")
    header += tuple(f"gain over {name}" for name in REFERENCES)
    rows = []
    for name, entry in measured["arms"].items():
        accuracy = entry["accuracy"]
        cells = [name, _tested(name), f"{entry['sent']:,}"]
        cells += [f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"]
        cells += [gain_cell(entry["gains"].get(other)) for other in REFERENCES]
        rows.append(cells)
    return "\n".join([*table(header, rows), _note(measured)])


def _tested(name: str) -> str:
    return "mean of the clients" if name in ("alone", "FedMD") else "one model"


def _note(measured: dict[str, Any]) -> str:
    return (
        f"Mean and standard deviation of {len(measured['seeds'])} new seeds, which also draw the "
        "clients; gains in accuracy on all ten digits with 95 % intervals, bold where they exclude "
        "zero. Each arm has the best of three settings by validation accuracy. "
        "`python benchmarks/federated.py FOLDER` computes the table.\n"
    )
