"""A plot as inline SVG: no script, readable in light and dark, drawn for one width."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

from instil.report import heatmap
from instil.report.legend import SHAPES, STROKES
from instil.report.plots import Plot
from instil.report.record import finite
from instil.report.scales import Scale, linear_ticks, log_ticks, padded_range, tick_label

CHARACTER = 6.9
"""Width of a character of 12 pixels, on average and generously."""
MOST_TIPS = 400
"""Points of a line that have a tooltip."""
Axis = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """The plotting area and its scales; of a categorical y axis the names, else None."""

    x: Scale
    y: Scale
    left: float
    right: float
    top: float
    bottom: float
    names: list[str] | None = None

    def y_of(self, value: Any) -> float:
        """Pixels of a number or of a name on the y axis."""
        return self.y(self.names.index(value) if self.names is not None else value)


def draw_svg(plot: Plot, width: int) -> str:
    """The plot as an SVG element of ``width`` by ``plot.height`` user units.

    Args:
        plot: traces of the types scatter and heatmap, in plotly's terms.
        width: of the place in CSS pixels, so that text has its normal size there.
    """
    if plot.data and plot.data[0].get("type") == "heatmap":
        inside, height = heatmap.draw_heatmap(plot, width)
    else:
        frame = _frame(plot, width)
        inside = _axes(plot, frame) + _traces(plot, frame)
        height = plot.height
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" '
        f'role="presentation">{inside}</svg>'
    )


def _frame(plot: Plot, width: int) -> Frame:
    x_axis, y_axis = plot.layout.get("xaxis", {}), plot.layout.get("yaxis", {})
    names = list(dict.fromkeys(y for trace in plot.data for y in trace["y"] if isinstance(y, str)))
    x_low, x_high = _range(plot, "x", x_axis)
    if names:
        y_low, y_high, texts = -0.5, len(names) - 0.5, [unescape(name) for name in names]
    else:
        y_low, y_high = _range(plot, "y", y_axis)
        texts = [
            tick_label(tick, y_axis.get("tickformat", ""))
            for tick in _ticks(y_axis, y_low, y_high, 6)
        ]
    title = 20 if y_axis.get("title") else 0
    left = min(width * 0.4, 12 + title + CHARACTER * max(map(len, texts), default=0))
    right, top, bottom = width - 14.0, 12.0, plot.height - 44.0
    x = Scale(x_low, x_high, left, right, x_axis.get("type") == "log")
    is_reversed = y_axis.get("autorange") == "reversed"
    y = Scale(y_low, y_high, top, bottom) if is_reversed else Scale(y_low, y_high, bottom, top)
    return Frame(x, y, left, right, top, bottom, names or None)


def _range(plot: Plot, axis: str, layout: Axis) -> tuple[float, float]:
    """The range that the layout gives, or one that holds all points and error bars."""
    if given := layout.get("range"):
        return float(given[0]), float(given[1])
    values: list[float] = []
    for trace in plot.data:
        points = [finite(value) for value in trace[axis]]
        bars = trace.get(f"error_{axis}", {})
        for index, value in enumerate(points):
            if value is not None:
                above = _bar(bars, "array", index)
                below = _bar(bars, "arrayminus", index) if "arrayminus" in bars else above
                values += [value - below, value + above]
    if layout.get("type") == "log":
        return padded_range([value for value in values if value > 0], False, True)
    return padded_range(values, layout.get("rangemode") == "tozero", False)


def _bar(bars: dict[str, Any], key: str, index: int) -> float:
    lengths = bars.get(key) or []
    return (finite(lengths[index]) or 0.0) if index < len(lengths) else 0.0


def _ticks(axis: Axis, low: float, high: float, count: int) -> list[float]:
    if axis.get("type") == "log":
        return log_ticks(low, high)
    if axis.get("dtick") == 1:
        return [float(value) for value in range(int(-(-low // 1)), int(high // 1) + 1)]
    ticks = linear_ticks(low, high, count)
    is_counted = _title(axis) == "epoch"
    return [tick for tick in ticks if tick == int(tick)] if is_counted else ticks


def _axes(plot: Plot, frame: Frame) -> str:
    """Grid, tick labels and titles."""
    x_axis, y_axis = plot.layout.get("xaxis", {}), plot.layout.get("yaxis", {})
    parts = []
    count = max(4, int((frame.right - frame.left) / 85))
    for tick in _ticks(x_axis, frame.x.low, frame.x.high, count):
        x = frame.x(tick)
        accent = "zero" if plot.layout.get("accent") == "zero" and tick == 0 else "grid"
        parts.append(_line(x, frame.top, x, frame.bottom, accent))
        text = tick_label(tick, x_axis.get("tickformat", ""))
        parts.append(_text(x, frame.bottom + 16, text, "middle"))
    if frame.names is not None:
        for name in frame.names:
            parts.append(_text(frame.left - 8, frame.y_of(name) + 4, unescape(name).strip(), "end"))
    else:
        for tick in _ticks(y_axis, frame.y.low, frame.y.high, 6):
            y = frame.y(tick)
            parts.append(_line(frame.left, y, frame.right, y, "grid"))
            text = tick_label(tick, y_axis.get("tickformat", ""))
            parts.append(_text(frame.left - 8, y + 4, text, "end"))
    middle, centre = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    parts.append(_text(middle, frame.bottom + 36, _title(x_axis), "middle"))
    if _title(y_axis):
        turned = f' transform="rotate(-90 14 {centre:.1f})"'
        parts.append(_text(14, centre, _title(y_axis), "middle", turned))
    return "".join(parts)


def _title(axis: Axis) -> str:
    return str((axis.get("title") or {}).get("text", ""))


def _traces(plot: Plot, frame: Frame) -> str:
    clip = f"clip-{plot.key}-{frame.right:.0f}"
    box = (
        f'<clipPath id="{clip}"><rect x="{frame.left - 8:.1f}" y="{frame.top - 8:.1f}" '
        f'width="{frame.right - frame.left + 16:.1f}" height="{frame.bottom - frame.top + 16:.1f}"/></clipPath>'
    )
    is_stacked = any("stackgroup" in trace for trace in plot.data)
    inside = _stacked(plot, frame) if is_stacked else _overlaid(plot, frame)
    return f'<defs>{box}</defs><g clip-path="url(#{clip})">{inside}</g>'


def _overlaid(plot: Plot, frame: Frame) -> str:
    return "".join(_trace(trace, frame) for trace in plot.data)


def _trace(trace: dict[str, Any], frame: Frame) -> str:
    points = [
        (index, frame.x(x), frame.y_of(y))
        for index, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True))
        if finite(x) is not None and (isinstance(y, str) or finite(y) is not None)
    ]
    line, mode = trace.get("line", {}), trace["mode"]
    opacity = f' opacity="{trace["opacity"]}"' if "opacity" in trace else ""
    parts = []
    if "lines" in mode and len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in points)
        dash = STROKES.get(line.get("dash", ""))
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        stroke = f'stroke="{line.get("color")}" stroke-width="{line.get("width", 2)}"'
        parts.append(f'<polyline points="{path}" fill="none" {stroke}{dashes}{opacity}/>')
    for index, x, y in points:
        parts.append(_error_bars(trace, frame, index, x, y))
    has_tip = trace.get("hoverinfo") != "skip" and len(points) <= MOST_TIPS
    for index, x, y in points:
        if "markers" in mode:
            parts.append(_marker(trace, index, x, y))
        elif has_tip:
            tip = f"<title>{_tip(trace, index)}</title>"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="transparent">{tip}</circle>'
            )
    return "".join(parts)


def _error_bars(trace: dict[str, Any], frame: Frame, index: int, x: float, y: float) -> str:
    parts = ""
    for axis in ("x", "y"):
        bars = trace.get(f"error_{axis}")
        value = finite(trace[axis][index]) if bars else None
        if bars is None or value is None:
            continue
        above = _bar(bars, "array", index)
        below = _bar(bars, "arrayminus", index) if "arrayminus" in bars else above
        if not above and not below:
            continue
        style = f'stroke="{bars["color"]}" stroke-width="{bars["thickness"]}"'
        scale, cap = (frame.x if axis == "x" else frame.y), bars["width"]
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
    size = marker.get("size", 9)
    size = size[index] if isinstance(size, list) else size
    symbol, color = marker.get("symbol", "circle"), marker["color"]
    if symbol.endswith("-open"):
        style = f'fill="var(--card)" stroke="{color}" stroke-width="2.5"'
    else:
        style = f'fill="{color}" fill-opacity="{marker.get("opacity", 1)}"'
    scale = size / 9
    move = f'transform="translate({x:.1f} {y:.1f}) scale({scale:.3f}) translate(-13 -6)"'
    shape = SHAPES[symbol.removesuffix("-open")]
    return f"<g {move} {style}>{shape}<title>{_tip(trace, index)}</title></g>"


def _stacked(plot: Plot, frame: Frame) -> str:
    """Areas on top of each other, each with the line that ends it."""
    parts: list[str] = []
    floor: dict[float, float] = {}
    for trace in plot.data:
        xs = [x for x, y in zip(trace["x"], trace["y"], strict=True) if finite(y) is not None]
        heights = dict(zip(trace["x"], trace["y"], strict=True))
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


def _tip(trace: dict[str, Any], index: int) -> str:
    """Tooltip of a point; names are escaped already."""
    x, y = trace["x"][index], trace["y"][index]
    is_percentage = "%{y:.1%}" in str(trace.get("hovertemplate", ""))
    value = y if isinstance(y, str) else tick_label(y, ".1~%" if is_percentage else "")
    return f"{trace.get('name', '')} {x:.4g}: {value}".strip()


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(unescape(words))}</text>'
