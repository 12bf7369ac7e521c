"""A plot's legend as an HTML list, which wraps where the screen is narrow."""

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
STROKES = {"dot": "2 2.5", "dash": "6 4", "dashdot": "7 2.5 2 2.5"}


def legend(plot: Plot) -> str:
    """One entry for every named trace; nothing for a plot of one."""
    named = [trace for trace in plot.data if "name" in trace and trace.get("showlegend", True)]
    entries = "".join(
        f"<li>{_sample(trace)}{trace['name']}</li>" for trace in named
    )  # names are escaped for plotly, which is escaped for HTML too
    return f'<ul class="legend">{entries}</ul>' if len(named) > 1 else ""


def _sample(trace: dict[str, Any]) -> str:
    line, marker = trace.get("line", {}), trace.get("marker", {})
    color = line.get("color") or marker.get("color")
    if "stackgroup" in trace:
        drawn = f'<path fill="{color}" opacity=".55" d="M0 1h26v10H0z"/><path stroke="{color}" stroke-width="1.5" d="M0 1h26"/>'
    else:
        dash = STROKES.get(line.get("dash", ""))
        stroke = f'<path stroke="{color}" stroke-width="2.25"{f" stroke-dasharray={dash!r}" if dash else ""} d="M0 6h26"/>'
        shape = f'<g fill="{color}">{SHAPES[marker.get("symbol", "circle")]}</g>'
        drawn = (stroke if "lines" in trace["mode"] else "") + (
            shape if "markers" in trace["mode"] else ""
        )
    left, width = (0, 26) if "lines" in trace["mode"] else (7, 12)
    return f'<svg width="{width}" height="12" viewBox="{left} 0 {width} 12" aria-hidden="true">{drawn}</svg>'
