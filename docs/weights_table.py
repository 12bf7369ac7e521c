"""Table of ``benchmarks/proof/balanced.json``: published weights against weights that balance."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from formatting import NOT_PERCENT, replace_markers, table

FOLDER = Path(__file__).parents[1] / "benchmarks" / "proof"
MARKER = "<!-- published and balanced weights -->"

KINDS = {"logits": ("logits", "labels"), "features, relations": ("features", "relations")}
"""Kinds of methods by the title of their row."""
SIZES = {"large": lambda weight: weight < 1, "small": lambda weight: weight > 1}
"""Test of the balanced weight by the size of the gradient."""


def insert_table(text: str) -> str:
    """Replace the marker by the table."""
    return replace_markers(text, {MARKER: comparison})


def comparison() -> str:
    """Table with rows for each kind of loss, size of its gradient, and task."""
    measured = json.loads((FOLDER / "balanced.json").read_text(encoding="utf-8"))
    header = ["task", "losses on", "gradient", "methods", "better with weight 1", "mean difference"]
    header += ["best with weight 1", "best with a balanced weight"]
    rows = []
    for (title, kinds), (size, has_size) in itertools.product(KINDS.items(), SIZES.items()):
        for task, methods in measured.items():
            own = {
                name: row
                for name, row in methods.items()
                if row["kind"] in kinds and has_size(row["weight"])
            }
            rows += [[f"`{task}`", title, size, *_cells(task, own)]] if own else []
    return "\n".join(table(header, rows))


def _cells(task: str, rows: dict[str, Any]) -> list[str]:
    path = FOLDER / "exhaustive" / f"{task}.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    # A perplexity is better if it is smaller.
    scale = 1 if result["headline"] in NOT_PERCENT else 100
    sign = 1 if result["higher_is_better"] else -1
    scores = {
        kind: {name: scale * fmean(row[kind]) for name, row in rows.items()}
        for kind in ("published", "balanced")
    }
    gains = [sign * (scores["published"][name] - scores["balanced"][name]) for name in rows]
    cells = [str(len(rows)), str(sum(gain > 0 for gain in gains))]
    cells.append(f"{fmean(gains):+.1f}")
    for kind in ("published", "balanced"):
        best = max(rows, key=lambda name: sign * scores[kind][name])
        cells.append(f"`{best}` {scores[kind][best]:.1f}")
    return cells
