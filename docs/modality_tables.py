"""Tables of the searches in ``benchmarks/modalities``, and the markers that stand for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from formatting import NOT_PERCENT, cell, gain_cell, table

from instil.plan.statistics import paired_gain
from instil.report.names import display_name

FOLDER = Path(__file__).parents[1] / "benchmarks" / "modalities"
MARKER = re.compile(r"^<!-- evidence: (\w+) -->$", re.MULTILINE)
Row = dict[str, Any]


def names() -> list[str]:
    """Names of the measured rows."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def insert_tables(text: str) -> str:
    """Replace every line ``<!-- evidence: ROW -->`` by the table of that row."""
    return MARKER.sub(lambda match: evidence(match[1]), text)


def evidence(name: str) -> str:
    """Table of the finalists of one row, with a note on the search.

    Raises:
        FileNotFoundError: if the row was not measured.
    """
    row = _read(name)
    references = [
        reference for reference in ("pseudo_labels", "alone") if _finalist(row, reference)
    ]
    unit = "" if row["headline"] in NOT_PERCENT else " (%)"
    header = ["method", f"test {display_name(row['headline'])}{unit}"]
    header += [f"gain over {_title(reference)}" for reference in references]
    for metric in row.get("further", ()):
        header += [f"{display_name(metric)} (%)", "its gain over student alone"]
    lines = []
    if row.get("teacher"):
        lines.append(
            [f"teacher ({cell(row['sees_more'])})", f"{_scale(row) * row['teacher']['score']:.1f}"]
        )
        lines[-1] += [""] * len(references)
        for metric in row.get("further", ()):
            lines[-1] += [f"{100 * row['teacher']['test'][metric]:.1f}", ""]
    for entry in row["finalists"]:
        is_winner = entry["name"] == row["winner"]
        title = f"**{_title(entry['name'])}**" if is_winner else _title(entry["name"])
        test = entry["test"]
        cells = [title, _mean(test["mean"], test["std"], _scale(row))]
        cells += [_gain(row, entry, reference) for reference in references]
        for metric in row.get("further", ()):
            cells += _further(row, entry, metric)
        lines.append(cells)
    return "\n".join([*table(header, lines), _note(name, row)])


def overview() -> str:
    """Page that compares the winner of each row with the reference arms."""
    lines = [
        "# Gains by modality",
        "",
        "Each row is a search with the same number of trials and steps for every arm, the student "
        "alone and pseudo-labels included. All choices use validation data. Gains are paired "
        "differences on the test split over new seeds, with the 95 % interval of Student's t; a "
        "positive gain is an improvement. **Bold**: the interval excludes zero. The winner has "
        "the best validation score; it can be a reference arm.",
        "",
    ]
    header = ("setting", "the teacher sees more", "metric", "winner")
    header += ("best method", "its gain over pseudo-labels", "its gain over the student alone")
    rows = []
    for name in names():
        row = _read(name)
        methods = [
            entry
            for entry in row["finalists"]
            if entry["name"] not in ("alone", "label_smoothing", "pseudo_labels")
        ]
        best = methods[0]
        rows.append(
            [
                cell(row["title"]),
                cell(row["sees_more"]),
                display_name(row["headline"]),
                _title(row["winner"]),
                _title(best["name"]),
                _gain(row, best, "pseudo_labels"),
                _gain(row, best, "alone"),
            ]
        )
    lines += table(header, rows)
    for name in names():
        lines += [f"## {_read(name)['title']}", "", evidence(name), ""]
    return "\n".join(lines)


def _read(name: str) -> Row:
    described: Row = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    measured: Row = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return described | measured


def _finalist(row: Row, name: str) -> Row | None:
    return next((entry for entry in row["finalists"] if entry["name"] == name), None)


def _title(name: str) -> str:
    titles = {
        "alone": "student alone",
        "label_smoothing": "label smoothing",
        "pseudo_labels": "pseudo-labels",
        "recipe": "the recipe's objectives",
    }
    return titles.get(name, f"`{name}`")


def _scale(row: Row) -> int:
    return 1 if row["headline"] in NOT_PERCENT else 100


def _mean(mean: float, std: float, scale: int) -> str:
    return f"{scale * mean:.1f} ± {scale * std:.1f}"


def _further(row: Row, entry: Row, metric: str) -> list[str]:
    """Score in a metric other than the headline, and its gain over the student alone."""
    test = entry["further_test"][metric]
    alone = _finalist(row, "alone")
    cells = [_mean(test["mean"], test["std"], 100), ""]
    if alone is not None and entry is not alone:
        gain = paired_gain(test["values"], alone["further_test"][metric]["values"])
        cells[1] = gain_cell(gain)
    return cells


def _gain(row: Row, entry: Row, reference: str) -> str:
    return gain_cell(entry["differences"].get(reference), _scale(row))


def _note(name: str, row: Row) -> str:
    arms = row["schedule"]["num_references"]
    trials = sum(rung["num_trials"] for rung in row["schedule"]["rungs"])
    counted_trials = f"{trials} trial{'s' if trials > 1 else ''}"
    references = f"each of the {arms} reference arms" if arms > 1 else "the reference arm"
    return (
        f"Mean and standard deviation of {len(row['final_seeds'])} new seeds; gains with 95 % "
        f"intervals, bold where they exclude zero. **Bold method**: best validation score. "
        f"{counted_trials} for each finalist and {references}, "
        f"{row['steps']} optimizer steps in all, {row['seconds'] / 60:.0f} minutes on shared CPU "
        f"cores: `python benchmarks/modalities.py {name} --data FOLDER`.\n"
    )
