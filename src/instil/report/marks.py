"""Lines, markers, error bars and areas of a plot as SVG."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from instil.report.legend import SHAPES, STROKES
from instil.report.plots import Plot
from instil.report.record import finite
from instil.report.scales import Scale, tick_label

MOST_TIPS = 400
"""Largest number of points of a line that have a tooltip each."""
SYMBOL_SIZE = 9
"""Size of the shapes of the legend, in the units of a marker's size."""
Point = tuple[int, float, float]
"""Index in the trace, and position in pixels."""


@dataclass(frozen=True)
class Frame:
    """Plotting area with its scales.

    Args:
        x: horizontal scale.
        y: vertical scale.
        left: left edge in pixels.
        right: right edge in pixels.
        top: upper edge in pixels.
        bottom: lower edge in pixels.
        names: categories of the y axis. None: numbers.
    """

    x: Scale
    y: Scale
    left: float
    right: float
    top: float
    bottom: float
    names: list[str] | None = None

    def y_of(self, value: Any) -> float:
        """Position in pixels of a number or a category on the y axis."""
        return self.y(self.names.index(value) if self.names is not None else value)


def bar_length(bars: dict[str, Any], side: str, index: int) -> float:
    """Length of an error bar.

    Args:
        bars: error bars of a trace.
        side: ``"array"`` for the upper side, ``"arrayminus"`` for the lower side; without an entry
            of its own the lower side is as long as the upper one.
        index: index of the point.
    """
    lengths = bars.get(side if side in bars else "array") or []
    return (finite(lengths[index]) or 0.0) if index < len(lengths) else 0.0


def draw_overlaid(plot: Plot, frame: Frame) -> str:
    """Draw lines and markers, later traces over earlier ones."""
    return "".join(_trace(trace, frame) for trace in plot.data)


def draw_stacked(plot: Plot, frame: Frame) -> str:
    """Draw areas on top of each other, each with its upper line."""
    parts: list[str] = []
    floor: dict[float, float] = {}
    for trace in plot.data:
        heights = dict(zip(trace["x"], trace["y"], strict=True))
        xs = [x for x, height in heights.items() if finite(height) is not None]
        top = {x: floor.get(x, 0.0) + heights[x] for x in xs}
        upper = [f"{frame.x(x):.1f},{frame.y(top[x]):.1f}" for x in xs]
        lower = [f"{frame.x(x):.1f},{frame.y(floor.get(x, 0.0)):.1f}" for x in reversed(xs)]
        color = trace["line"]["color"]
        name = f"<title>{trace['name']}</title>"
        area = " ".join(itertools.chain(upper, lower))
        parts.append(f'<polygon points="{area}" fill="{color}" opacity=".55">{name}</polygon>')
        parts.append(f'<polyline points="{" ".join(upper)}" fill="none" stroke="{color}"/>')
        floor = floor | top
    return "".join(parts)


def _trace(trace: dict[str, Any], frame: Frame) -> str:
    points = _points(trace, frame)
    mode = trace["mode"]
    parts = []
    if "lines" in mode and len(points) > 1:
        parts.append(_polyline(trace, points))
    for index, x, y in points:
        parts.append(_error_bars(trace, frame, index, x, y))
    has_tip = trace.get("hoverinfo") != "skip" and len(points) <= MOST_TIPS
    for index, x, y in points:
        if "markers" in mode:
            parts.append(_marker(trace, index, x, y))
        elif has_tip:
            circle = f'cx="{x:.1f}" cy="{y:.1f}" r="7" fill="transparent"'
            parts.append(f"<circle {circle}><title>{_tip(trace, index)}</title></circle>")
    return "".join(parts)


def _points(trace: dict[str, Any], frame: Frame) -> list[Point]:
    """Points with finite values."""
    points = []
    for index, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True)):
        if finite(x) is not None and (isinstance(y, str) or finite(y) is not None):
            points.append((index, frame.x(x), frame.y_of(y)))
    return points


def _polyline(trace: dict[str, Any], points: list[Point]) -> str:
    line = trace.get("line", {})
    path = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in points)
    pattern = STROKES.get(line.get("dash", ""))
    dashes = f' stroke-dasharray="{pattern}"' if pattern else ""
    opacity = f' opacity="{trace["opacity"]}"' if "opacity" in trace else ""
    stroke = f'stroke="{line.get("color")}" stroke-width="{line.get("width", 2)}"'
    return f'<polyline points="{path}" fill="none" {stroke}{dashes}{opacity}/>'


def _error_bars(trace: dict[str, Any], frame: Frame, index: int, x: float, y: float) -> str:
    parts = ""
    for axis in ("x", "y"):
        bars = trace.get(f"error_{axis}", {})
        value = finite(trace[axis][index]) if bars else None
        above = bar_length(bars, "array", index)
        below = bar_length(bars, "arrayminus", index)
        if value is None or (not above and not below):
            continue
        style = f'stroke="{bars["color"]}" stroke-width="{bars["thickness"]}"'
        scale = frame.x if axis == "x" else frame.y
        cap = bars["width"]
        ends = scale(value - below), scale(value + above)
        if axis == "x":
            shape = f"M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}"
            caps = "".join(f"M{end:.1f} {y - cap:.1f}v{2 * cap}" for end in ends)
        else:
            shape = f"M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}"
            caps = "".join(f"M{x - cap:.1f} {end:.1f}h{2 * cap}" for end in ends)
        parts += f'<path d="{shape}{caps}" fill="none" {style}/>'
    return parts


def _marker(trace: dict[str, Any], index: int, x: float, y: float) -> str:
    marker = trace["marker"]
    size = marker.get("size", SYMBOL_SIZE)
    size = size[index] if isinstance(size, list) else size
    symbol = marker.get("symbol", "circle")
    color = marker["color"]
    if symbol.endswith("-open"):
        style = f'fill="var(--card)" stroke="{color}" stroke-width="2.5"'
    else:
        style = f'fill="{color}" fill-opacity="{marker.get("opacity", 1)}"'
    # The shapes are centred at (13, 6), which is moved to the point.
    scale = size / SYMBOL_SIZE
    move = f'transform="translate({x:.1f} {y:.1f}) scale({scale:.3f}) translate(-13 -6)"'
    shape = SHAPES[symbol.removesuffix("-open")]
    return f"<g {move} {style}>{shape}<title>{_tip(trace, index)}</title></g>"


def _tip(trace: dict[str, Any], index: int) -> str:
    """Tooltip of a point. Names are escaped already."""
    x, y = trace["x"][index], trace["y"][index]
    is_percentage = "%{y:.1%}" in str(trace.get("hovertemplate", ""))
    form = ".1~%" if is_percentage else ""
    value = y if isinstance(y, str) else tick_label(y, form)
    return f"{trace.get('name', '')} {x:.4g}: {value}".strip()
