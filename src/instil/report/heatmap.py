"""Confusion matrix as SVG: correct predictions in one colour, mistakes in another."""

from __future__ import annotations

from html import escape, unescape
from typing import Any

from instil.report.plots import Plot

CORRECT = "#0b7a68"
WRONG = "#e8853a"
CHARACTER = 6.9
"""Width of a character of 12 px, a little above its mean."""
LARGEST_CELL = 36.0
MOST_NAMES = 30
"""Largest number of class names along an axis."""


def draw_heatmap(plot: Plot, width: int) -> tuple[str, float]:
    """Draw cells, counts and class names.

    Args:
        plot: plot whose first trace is a heatmap.
        width: width in CSS pixels.

    Returns:
        SVG elements, and the height that they need.
    """
    trace = plot.data[0]
    num_classes = len(trace["z"])
    names = [unescape(name) for name in plot.layout["xaxis"].get("ticktext") or ()]
    longest = CHARACTER * max((len(name) for name in names), default=0)
    is_turned = any(len(name) > 3 for name in names)
    left, top = 32.0 + longest, 10.0
    cell = min(LARGEST_CELL, (width - left - 10) / num_classes)
    size = cell * num_classes
    parts = []
    for row in range(num_classes):
        parts += [_cell(trace, row, column, left, top, cell) for column in range(num_classes)]
    for index, name in enumerate(names[:MOST_NAMES]):
        middle = (index + 0.5) * cell
        parts.append(_text(left - 6, top + middle + 4, name, "end"))
        x, y = left + middle, top + size + 14
        turn = f' transform="rotate(-45 {x:.1f} {y:.1f})"' if is_turned else ""
        parts.append(_text(x, y, name, "end" if is_turned else "middle", turn))
    bottom = top + size + _name_height(names, longest, is_turned) + 18
    parts.append(_text(left + size / 2, bottom, "predicted class", "middle"))
    center = top + size / 2
    turn = f' transform="rotate(-90 14 {center:.1f})"'
    parts.append(_text(14, center, "true class", "middle", turn))
    return "".join(parts), bottom + 8


def _name_height(names: list[str], longest: float, is_turned: bool) -> float:
    """Height of the class names under the matrix."""
    if not names:
        return 6
    return 0.72 * longest + 14 if is_turned else 18


def _cell(
    trace: dict[str, Any], row: int, column: int, left: float, top: float, cell: float
) -> str:
    """Cell with its count; nothing for an empty cell."""
    share = trace["z"][row][column]
    if not share and trace["text"][row][column] == "":
        return ""
    true, predicted, count, part = trace["customdata"][row][column]
    gap = 1 if cell > 8 else 0
    x, y = left + column * cell, top + row * cell
    color = CORRECT if share > 0 else WRONG
    tip = f"<title>{true} predicted as {predicted}: {count:g} ({100 * part:.1f}%)</title>"
    box = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - gap:.1f}" height="{cell - gap:.1f}" '
        f'fill="{color}" fill-opacity="{abs(share):.3f}">{tip}</rect>'
    )
    text = trace["text"][row][column]
    if cell < 14 or len(text) * 6 > cell:
        return box
    tone = ' class="on"' if abs(share) > 0.6 else ""
    middle = f'x="{x + (cell - gap) / 2:.1f}" y="{y + cell / 2 + 3.5:.1f}"'
    return f'{box}<text {middle} text-anchor="middle" font-size="10"{tone}>{text}</text>'


def _text(x: float, y: float, text: str, anchor: str, attributes: str = "") -> str:
    position = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {position} text-anchor="{anchor}"{attributes}>{escape(text)}</text>'
