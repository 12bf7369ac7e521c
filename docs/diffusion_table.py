"""Tables of ``benchmarks/diffusion*.json``, and the markers that stand for them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from formatting import replace_markers, table

FOLDER = Path(__file__).parents[1] / "benchmarks"
MARKERS = {
    "<!-- diffusion on digits -->": "diffusion",
    "<!-- diffusion on digits for longer -->": "diffusion_long",
    "<!-- diffusion on MNIST -->": "diffusion_mnist",
    "<!-- diffusion on MNIST for longer -->": "diffusion_mnist_long",
}
"""Marker -> name of the file."""
REFERENCES = ("teacher", "teacher trained on", "guided teacher", "student alone")
"""Rows that are not the name of a scheme."""


def insert_tables(text: str) -> str:
    """Replace the markers by the tables of quality against sampling steps."""
    contents = {marker: functools.partial(evidence, name) for marker, name in MARKERS.items()}
    return replace_markers(text, contents)


def evidence(name: str) -> str:
    """Table of the Frechet distances of one file, by method and number of sampling steps."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    lines: list[dict[str, Any]] = content["rows"]
    counts = sorted({line["steps"] for line in lines})
    methods = dict.fromkeys(line["method"] for line in lines)
    seconds = {line["method"]: line["seconds"] for line in lines}
    cells = {(line["method"], line["steps"]): _distance(line) for line in lines}
    rows = []
    for method in methods:
        row = [_title(method)]
        row += [cells.get((method, count), "") for count in counts]
        rows.append([*row, _cost(seconds[method], seconds.get("student alone"))])
    header = ["sampling steps", *(str(count) for count in counts), "cost"]
    distance = f"The training images have a distance of {content['training_distance']:.2f}."
    return "\n".join([*table(header, rows), "", distance])


def _cost(seconds: float, alone: float | None) -> str:
    return f"{seconds / alone:.1f}" if seconds and alone else ""


def _title(method: str) -> str:
    if method in REFERENCES:
        return method
    titles = {
        "ladd": "`ode_regression`, then `ladd`",
        "progressive to 4": "`progressive` to 4",
        "guided dmd": "`dmd`, guided",
    }
    return titles.get(method, f"`{method}`")


def _distance(line: dict[str, Any]) -> str:
    text = f"{line['frechet_distance']:.2f}"
    deviation = line["frechet_distance_std"]
    return text if deviation is None else f"{text} ± {deviation:.2f}"
