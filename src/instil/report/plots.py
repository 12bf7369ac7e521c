"""Description of a plot, and the colours, line styles and texts that all plots share."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

COLORS = {
    "teacher": "#7d8794",
    "alone": "#d97a2b",
    "distilled": "#0f9a83",
}
OTHER_COLORS = ("#a08a14", "#c2504d", "#6f78d6", "#6b9a3a", "#9a6b4f")
DASHES = {"teacher": "dot", "label_smoothing": "dash", "pseudo_labels": "dashdot"}
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")


@dataclass(frozen=True)
class Plot:
    """Plot with traces and layout of plotly.

    Args:
        key: name of the plot, unique on a page.
        title: heading.
        caption: how to read the plot.
        summary: content of the plot as text, for readers who cannot see it.
        data: traces.
        layout: axes and other settings.
        height: height in CSS pixels.
        is_half_width: one of two plots in a row.
    """

    key: str
    title: str
    caption: str
    summary: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 340
    is_half_width: bool = False


def arm_color(arm: str) -> str:
    """Colour of an arm in all plots and tables; legible on white and on black."""
    # hash() of a string differs between processes, so a sum of bytes selects the colour.
    return COLORS.get(arm) or OTHER_COLORS[sum(arm.encode()) % len(OTHER_COLORS)]


def plotly_text(text: str) -> str:
    """Escape a text for plotly, which interprets tags and entities."""
    return escape(text, quote=False)
