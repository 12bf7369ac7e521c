"""Table of the methods that are close to the best on the tasks of ``benchmarks/proof``."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from formatting import gain_cell, replace_markers, table

from instil.plan.statistics import paired_gain

PROOF = Path(__file__).parents[1] / "benchmarks" / "proof"
FOLDER = PROOF / "exhaustive"
MARKER = "<!-- ranking of methods -->"
NEW_SEEDS_MARKER = "<!-- dist with new seeds -->"
REFERENCES = ("kd", "pseudo_labels", "label_smoothing", "alone")
NUM_METHODS = 25
MIN_SHARE = 0.75
"""Smallest share of the tasks that a method of the table was trained on."""

Shares = dict[str, dict[str, float]]
"""Share of the largest gain by method and task."""


def insert_table(text: str) -> str:
    """Replace the markers by the tables."""
    return replace_markers(text, {MARKER: ranking, NEW_SEEDS_MARKER: new_seeds})


def new_seeds() -> str:
    """Table of ``dist`` and the reference arms with the new seeds of ``proof.py confirm``."""
    header = ["task", "`dist`", *(f"`{name}`" for name in REFERENCES)]
    header += ["`dist` over `kd`", "`dist` over `pseudo_labels`"]
    rows = []
    for path in sorted((PROOF / "confirmed").glob("*.json")):
        test = json.loads(path.read_text(encoding="utf-8"))["test"]
        # Tokens have no pseudo-labels.
        if not {"dist", *REFERENCES} <= test.keys():
            continue
        cells = [f"{100 * test[name]['mean']:.1f}" for name in ("dist", *REFERENCES)]
        for name in REFERENCES[:2]:
            gain = paired_gain(test["dist"]["values"], test[name]["values"], True)
            cells.append(gain_cell(gain))
        rows.append([f"`{path.stem}`", *cells])
    return "\n".join(table(header, rows))


def ranking() -> str:
    """Table of the best methods, in the order of their mean share."""
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(FOLDER.glob("*.json"))
    }
    shares = shares_of_gain(results)
    means = {
        name: fmean(own.values())
        for name, own in shares.items()
        if len(own) >= MIN_SHARE * len(results)
    }
    names = sorted(means, key=lambda name: -means[name])[:NUM_METHODS]
    header = ["method", "mean", "worst", *results]
    rows = [[f"`{name}`", *_cells(means[name], shares[name], list(results))] for name in names]
    return "\n".join(table(header, rows))


def shares_of_gain(results: dict[str, Any]) -> Shares:
    """Gain over the student alone, relative to the largest gain of all methods.

    Args:
        results: exhaustive search of each task.
    """
    shares: Shares = {}
    for task, result in results.items():
        sign = 1 if result["higher_is_better"] else -1
        scores = {name: sign * arm["test"]["mean"] for name, arm in result["arms"].items()}
        alone, best = scores.pop("alone"), max(scores.values())
        # The recipe has other objectives on each task.
        scores.pop("recipe", None)
        for name, score in scores.items():
            shares.setdefault(name, {})[task] = (score - alone) / (best - alone)
    return shares


def _cells(mean: float, shares: dict[str, float], tasks: list[str]) -> list[str]:
    by_task = [f"{100 * shares[task]:.0f}" if task in shares else "" for task in tasks]
    return [f"{100 * mean:.0f}", f"{100 * min(shares.values()):.0f}", *by_task]
