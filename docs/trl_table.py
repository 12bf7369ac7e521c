"""Tables of ``benchmarks/trl.json``, and the marker that stands for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import replace_markers, table

RESULT = Path(__file__).parents[1] / "benchmarks" / "trl.json"
MARKER = "<!-- comparison with TRL -->"
KINDS = {
    "offline": "text of the data",
    "recorded": "recorded teacher outputs",
    "on_policy": "the student's own text",
}
HEADER = (
    "networks",
    "training on",
    "time, with TRL",
    "memory, with TRL",
    "time, with the plain loop",
    "memory, with the plain loop",
)


def insert_table(text: str) -> str:
    """Replace the marker by the tables of the comparison with TRL."""
    return replace_markers(text, {MARKER: comparison})


def comparison() -> str:
    """Tables of trainings and of generated texts, with the sizes and versions of the run."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    trainings = [row for row in result["rows"] if row["kind"] in KINDS]
    rollouts = [row for row in result["rows"] if row["kind"] == "rollouts"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rounds = f"median of {result['rounds']} rounds of {result['steps']} steps"
    lines = [
        f"{result['date']}, one thread of a CPU, {versions}; {rounds}, with the range over them:",
        "",
        *table(HEADER, [_training(row) for row in trainings]),
        "Time of the generated texts alone:",
        "",
        *table(
            ("networks", "with `generate`", "with `generate`, static cache"),
            [[row["size"], _time(row, "generate"), _time(row, "static")] for row in rollouts],
        ),
        *[_size(name, size) for name, size in result["sizes"].items()],
    ]
    return "\n".join(lines)


def _training(row: dict[str, Any]) -> list[str]:
    cells = [row["size"], KINDS[row["kind"]]]
    for side in ("TRL", "loop"):
        memory = row.get(f"memory_{side}")
        cells += [_time(row, side), "" if memory is None else f"{memory:.2f}"]
    return cells


def _time(row: dict[str, Any], side: str) -> str:
    if f"time_{side}" not in row:
        return ""
    middle, lowest, highest = row[f"time_{side}"]
    return f"{middle:.2f} ({lowest:.2f} to {highest:.2f})"


def _size(name: str, size: dict[str, Any]) -> str:
    networks = [
        f"{side} of width {size[side][0]} with {size[side][1]} layers"
        for side in ("student", "teacher")
    ]
    return (
        f"- *{name}*: {' and '.join(networks)}, {size['vocabulary']:,} tokens, batches of "
        f"{size['rows']} rows of {size['prompt']} tokens and {size['answer']} new ones."
    )
