"""Table of ``benchmarks/arithmetic.json``, and the marker that stands for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

RESULT = Path(__file__).parents[1] / "benchmarks" / "arithmetic.json"
MARKER = "<!-- evidence of arithmetic -->"
TITLES = {
    "answers": "supervised training on answers",
    "rationales_and_answers": "supervised training on rationales and answers",
    "step_by_step": "`step_by_step`: answers, and rationales as a second task",
    "verified_texts": "`sequence_level` with `verified`: correct texts of the teacher",
    "on_policy": "`on_policy`: rationales and answers, and the student's own text",
}


def insert_table(text: str) -> str:
    """Replace the marker by the table."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of the share of correct answers of each arm, with a note on the setting."""
    measured: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    references = [name for name in measured["arms"] if name in measured["references"]]
    header = ["student learns by", "solved (%)"]
    header += [f"gain over {TITLES[name]}" for name in references]
    rows = []
    for name, arm in measured["arms"].items():
        solved = arm["solved"]
        cells = [TITLES[name], f"{100 * solved['mean']:.1f} ± {100 * solved['std']:.1f}"]
        cells += [gain_cell(arm.get("gains", {}).get(reference)) for reference in references]
        rows.append(cells)
    return "\n".join([*table(header, rows), _note(measured)])


def _note(measured: dict[str, Any]) -> str:
    return (
        "Share of 256 test sums of two-digit numbers whose most likely answer is correct: mean "
        f"and standard deviation of {len(measured['seeds'])} seeds; gains with 95 % intervals, "
        "bold where they exclude zero. All students have two layers of width 32 and learn from "
        f"{measured['rows']} problems for {measured['steps']} steps at the learning rate "
        f"{measured['rate']}, which was not tuned. The teacher learned from 2,048 problems with "
        f"rationales and solves {100 * measured['teacher']:.1f} %. "
        "`python benchmarks/arithmetic.py` computes the table.\n"
    )
