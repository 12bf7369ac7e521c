"""A confusion matrix as SVG: right answers in one colour, mistakes in another."""

from __future__ import annotations

from html import escape, unescape
from typing import Any

from instil.report.plots import Plot

RIGHT, WRONG = "#0b7a68", "#e8853a"
CHARACTER = 6.9
LARGEST_CELL = 36.0
FEW = 30
"""Classes up to which each has its name beside the matrix."""


def draw_heatmap(plot: Plot, width: int) -> tuple[str, float]:
    """Cells, counts and class names; returns the elements and the height."""
    trace = plot.data[0]
    rows: list[list[float]] = trace["z"]
    num_classes = len(rows)
    ticks = plot.layout["xaxis"].get("ticktext")
    names = [unescape(name) for name in ticks] if ticks else []
    longest = CHARACTER * max((len(name) for name in names), default=0)
    is_turned = any(len(name) > 3 for name in names)
    left, top = 32.0 + longest, 10.0
    cell = min(LARGEST_CELL, (width - left - 10) / num_classes)
    size = cell * num_classes
    under = (0.72 * longest + 14 if is_turned else 18) if names else 6
    parts = [
        _cell(trace, row, column, left, top, cell)
        for row in range(num_classes)
        for column in range(num_classes)
    ]
    for index, name in enumerate(names[:FEW]):
        middle = (index + 0.5) * cell
        parts.append(_text(left - 6, top + middle + 4, name, "end"))
        x, y = left + middle, top + size + 14
        turn = f' transform="rotate(-45 {x:.1f} {y:.1f})"' if is_turned else ""
        parts.append(_text(x, y, name, "end" if is_turned else "middle", turn))
    bottom = top + size + under + 18
    parts.append(_text(left + size / 2, bottom, "predicted class", "middle"))
    centre = top + size / 2
    turn = f' transform="rotate(-90 14 {centre:.1f})"'
    parts.append(_text(14, centre, "true class", "middle", turn))
    return "".join(parts), bottom + 8


def _cell(
    trace: dict[str, Any], row: int, column: int, left: float, top: float, cell: float
) -> str:
    """One cell with its count; empty cells are left out."""
    share = trace["z"][row][column]
    if not share and trace["text"][row][column] == "":
        return ""
    true, predicted, count, part = trace["customdata"][row][column]
    gap = 1 if cell > 8 else 0
    x, y = left + column * cell, top + row * cell
    color = RIGHT if share > 0 else WRONG
    tip = f"<title>{true} predicted as {predicted}: {count:g} ({100 * part:.1f}%)</title>"
    box = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - gap:.1f}" height="{cell - gap:.1f}" '
        f'fill="{color}" fill-opacity="{abs(share):.3f}">{tip}</rect>'
    )
    words = trace["text"][row][column]
    if cell < 14 or len(words) * 6 > cell:
        return box
    tone = ' class="on"' if abs(share) > 0.6 else ""
    text = f'<text x="{x + (cell - gap) / 2:.1f}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="middle" font-size="10"{tone}>{words}</text>'
    return box + text


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
