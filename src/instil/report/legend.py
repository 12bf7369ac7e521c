"""Legend of a plot as an HTML list, which wraps on narrow screens."""

from __future__ import annotations

from typing import Any

from instil.report.plots import Plot

SHAPES = {
    "circle": '<circle cx="13" cy="6" r="4.5"/>',
    "diamond": '<path d="M13 .5 18.5 6 13 11.5 7.5 6z"/>',
    "square": '<path d="M8.5 1.5h9v9h-9z"/>',
    "triangle-up": '<path d="M13 1 18.5 10.5h-11z"/>',
    "cross": '<path d="M11 1h4v3h3v4h-3v3h-4V8H8V4h3z"/>',
}
"""Symbols of plotly as SVG in a box of 26 by 12 units, centred at (13, 6)."""
STROKES = {"dot": "2 2.5", "dash": "6 4", "dashdot": "7 2.5 2 2.5"}
"""Line styles of plotly as dash patterns of SVG."""


def legend(plot: Plot) -> str:
    """List with an entry for each named trace; empty if there is only one."""
    named = [trace for trace in plot.data if "name" in trace and trace.get("showlegend", True)]
    # Names are escaped for plotly already; escaping them again would show the entities.
    entries = "".join(f"<li>{_sample(trace)}{trace['name']}</li>" for trace in named)
    return f'<ul class="legend">{entries}</ul>' if len(named) > 1 else ""


def _sample(trace: dict[str, Any]) -> str:
    """Line, marker or area of a trace."""
    line = trace.get("line", {})
    marker = trace.get("marker", {})
    color = line.get("color") or marker.get("color")
    has_line = "lines" in trace["mode"]
    if "stackgroup" in trace:
        shapes = (
            f'<path fill="{color}" opacity=".55" d="M0 1h26v10H0z"/>'
            f'<path stroke="{color}" stroke-width="1.5" d="M0 1h26"/>'
        )
    else:
        shapes = _stroke(color, line.get("dash", "")) if has_line else ""
        if "markers" in trace["mode"]:
            shapes += f'<g fill="{color}">{SHAPES[marker.get("symbol", "circle")]}</g>'
    left, width = (0, 26) if has_line else (7, 12)
    box = f'width="{width}" height="12" viewBox="{left} 0 {width} 12"'
    return f'<svg {box} aria-hidden="true">{shapes}</svg>'


def _stroke(color: str, style: str) -> str:
    pattern = STROKES.get(style)
    dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
    return f'<path stroke="{color}" stroke-width="2.25"{dashes} d="M0 6h26"/>'
