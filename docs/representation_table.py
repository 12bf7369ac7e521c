"""Table of the recipes of representations in ``benchmarks/gains.json``, and its marker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from formatting import gain_cell, replace_markers, table

RESULT = Path(__file__).parents[1] / "benchmarks" / "gains.json"
MARKER = "<!-- gains of representations -->"
TITLES = {
    "representation/representation": "SimReg",
    "representation/bingo": "BINGO",
    "representation/representation objectives.simreg=null objectives.seed.size=512": (
        "SEED, 512 stored embeddings"
    ),
    "representation/dinov2": "DINOv2, clusters and hidden patches",
    "representation/disco": "DisCo",
    "representation/momentum_contrast": "DisCo with a queue of keys (`momentum_contrast`)",
    "representation/radio": "AM-RADIO, three other teachers",
    "representation/dino": "DINO, without a teacher",
}
"""Command -> title, in the order of the table."""
METRICS = ("accuracy", "knn")


def insert_table(text: str) -> str:
    """Replace the marker by the table of representations."""
    return replace_markers(text, {MARKER: evidence})


def evidence() -> str:
    """Table of the teacher, the untrained student and the student of each recipe."""
    measured = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
    rows = {row["command"]: row for row in measured if row["command"] in TITLES}
    first = rows[next(iter(TITLES))]
    lines = [
        ["teacher, 128 numbers", *_scores(first["teacher"]), ""],
        ["student, untrained", *_scores(first["random_init"]), ""],
    ]
    for command, title in TITLES.items():
        row = rows[command]
        gain = gain_cell(row["gains"]["random_init"])
        lines.append([title, *_scores(row["distilled"]), gain])
    header = ["encoder", "ridge probe (%)", "20 neighbours (%)"]
    return "\n".join(table([*header, "gain of the ridge probe over the untrained student"], lines))


def _scores(arm: Mapping[str, Any]) -> list[str]:
    """Cells of both probes; a teacher has one value, without a deviation."""
    cells = []
    for metric in METRICS:
        score = arm[metric]
        text = f"{100 * score['mean']:.1f}"
        is_single = len(score["values"]) == 1
        cells.append(text if is_single else f"{text} ± {100 * score['std']:.1f}")
    return cells
