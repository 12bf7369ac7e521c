"""Tables of ``benchmarks/graph_latency.json``, and the markers that stand for them."""

from __future__ import annotations

import json
from pathlib import Path

from formatting import table

RESULT = Path(__file__).parents[1] / "benchmarks" / "graph_latency.json"
MARKERS = {
    "<!-- latency: graphs -->": ("lines", "nodes", "nodes per prediction"),
    "<!-- latency: links -->": ("links", "anchors", "nodes with 101 candidates each"),
}
"""Marker -> part of the result, its first column and the header of this column."""


def insert_table(text: str) -> str:
    """Replace each marker by its table of latencies."""
    for marker, columns in MARKERS.items():
        if marker in text:
            text = text.replace(marker, latency(*columns))
    return text


def latency(part: str, column: str, title: str) -> str:
    """Table of the time of a prediction of both networks.

    Args:
        part: part of the result.
        column: name of the first column in the result.
        title: header of the first column.
    """
    lines = json.loads(RESULT.read_text(encoding="utf-8"))[part]
    header = (title, "nodes that the teacher reads", "teacher", "student")
    rows = []
    for line in lines:
        times = [f"{line[side]:.2g} ms" for side in ("teacher_ms", "student_ms")]
        rows.append([f"{line[column]:,}", f"{line['nodes_read']:,}", *times])
    return "\n".join(table(header, rows))
