"""Table of ``benchmarks/graph_latency.json``, and the marker that stands for it."""

from __future__ import annotations

import json
from pathlib import Path

from formatting import table

RESULT = Path(__file__).parents[1] / "benchmarks" / "graph_latency.json"
MARKER = "<!-- latency: graphs -->"


def insert_table(text: str) -> str:
    """Replace the marker by the table of latencies."""
    return text.replace(MARKER, latency()) if MARKER in text else text


def latency() -> str:
    """Table of the time of a prediction of both networks by number of nodes."""
    lines = json.loads(RESULT.read_text(encoding="utf-8"))["lines"]
    header = ("nodes per prediction", "nodes that the teacher reads", "teacher", "student")
    rows = []
    for line in lines:
        times = [f"{line[side]:.2g} ms" for side in ("teacher_ms", "student_ms")]
        rows.append([f"{line['nodes']:,}", f"{line['nodes_read']:,}", *times])
    return "\n".join(table(header, rows))
