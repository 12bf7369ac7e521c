"""Plot as inline SVG without a script, readable in light and dark, drawn for one width."""

from __future__ import annotations

from html import escape, unescape
from typing import Any

from instil.report import heatmap
from instil.report.marks import Frame, bar_length, draw_overlaid, draw_stacked
from instil.report.plots import Plot
from instil.report.record import finite
from instil.report.scales import Scale, linear_ticks, log_ticks, padded_range, tick_label

CHARACTER = 6.9
"""Width of a character of 12 px, a little above its mean."""
Axis = dict[str, Any]


def draw_svg(plot: Plot, width: int) -> str:
    """Draw a plot as an SVG element of ``width`` by ``plot.height`` user units.

    Args:
        plot: traces of the types scatter and heatmap of plotly.
        width: width in CSS pixels at which the page shows it, so that text has its normal size.
    """
    if plot.data and plot.data[0].get("type") == "heatmap":
        content, height = heatmap.draw_heatmap(plot, width)
    else:
        frame = _frame(plot, width)
        content = _axes(plot, frame) + _traces(plot, frame)
        height = plot.height
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" '
        f'role="presentation">{content}</svg>'
    )


def _frame(plot: Plot, width: int) -> Frame:
    x_axis = plot.layout.get("xaxis", {})
    y_axis = plot.layout.get("yaxis", {})
    names = _category_names(plot)
    x_low, x_high = _range(plot, "x", x_axis)
    if names:
        y_low, y_high = -0.5, len(names) - 0.5
        texts = [unescape(name) for name in names]
    else:
        y_low, y_high = _range(plot, "y", y_axis)
        texts = [_tick_text(y_axis, tick) for tick in _ticks(y_axis, y_low, y_high, 6)]
    title = 20 if y_axis.get("title") else 0
    left = min(width * 0.4, 12 + title + CHARACTER * max(map(len, texts), default=0))
    right, top, bottom = width - 14.0, 12.0, plot.height - 44.0
    x = Scale(x_low, x_high, left, right, x_axis.get("type") == "log")
    is_reversed = y_axis.get("autorange") == "reversed"
    y = Scale(y_low, y_high, top, bottom) if is_reversed else Scale(y_low, y_high, bottom, top)
    return Frame(x, y, left, right, top, bottom, names or None)


def _category_names(plot: Plot) -> list[str]:
    """Names on a categorical y axis; empty for numbers."""
    names: dict[str, None] = {}
    for trace in plot.data:
        names |= dict.fromkeys(y for y in trace["y"] if isinstance(y, str))
    return list(names)


def _range(plot: Plot, axis: str, layout: Axis) -> tuple[float, float]:
    """Range of the layout, or one that holds all points and error bars."""
    if limits := layout.get("range"):
        return float(limits[0]), float(limits[1])
    values: list[float] = []
    for trace in plot.data:
        bars = trace.get(f"error_{axis}", {})
        for index, value in enumerate(map(finite, trace[axis])):
            if value is not None:
                values.append(value - bar_length(bars, "arrayminus", index))
                values.append(value + bar_length(bars, "array", index))
    if layout.get("type") == "log":
        return padded_range([value for value in values if value > 0], False, True)
    return padded_range(values, layout.get("rangemode") == "tozero", False)


def _ticks(axis: Axis, low: float, high: float, count: int) -> list[float]:
    if axis.get("type") == "log":
        return log_ticks(low, high)
    if axis.get("dtick") == 1:
        return [float(value) for value in range(int(-(-low // 1)), int(high // 1) + 1)]
    ticks = linear_ticks(low, high, count)
    # Epochs are counted, so an axis of epochs has whole numbers only.
    is_counted = _title(axis) == "epoch"
    return [tick for tick in ticks if tick == int(tick)] if is_counted else ticks


def _tick_text(axis: Axis, tick: float) -> str:
    return tick_label(tick, axis.get("tickformat", ""))


def _axes(plot: Plot, frame: Frame) -> str:
    """Grid, tick labels and titles."""
    x_axis = plot.layout.get("xaxis", {})
    y_axis = plot.layout.get("yaxis", {})
    parts = []
    count = max(4, int((frame.right - frame.left) / 85))
    for tick in _ticks(x_axis, frame.x.low, frame.x.high, count):
        x = frame.x(tick)
        is_accent = plot.layout.get("accent") == "zero" and tick == 0
        parts.append(_line(x, frame.top, x, frame.bottom, "zero" if is_accent else "grid"))
        parts.append(_text(x, frame.bottom + 16, _tick_text(x_axis, tick), "middle"))
    for name in frame.names or ():
        parts.append(_text(frame.left - 8, frame.y_of(name) + 4, unescape(name).strip(), "end"))
    for tick in () if frame.names else _ticks(y_axis, frame.y.low, frame.y.high, 6):
        y = frame.y(tick)
        parts.append(_line(frame.left, y, frame.right, y, "grid"))
        parts.append(_text(frame.left - 8, y + 4, _tick_text(y_axis, tick), "end"))
    middle = (frame.left + frame.right) / 2
    center = (frame.top + frame.bottom) / 2
    parts.append(_text(middle, frame.bottom + 36, _title(x_axis), "middle"))
    if _title(y_axis):
        turn = f' transform="rotate(-90 14 {center:.1f})"'
        parts.append(_text(14, center, _title(y_axis), "middle", turn))
    return "".join(parts)


def _title(axis: Axis) -> str:
    return str((axis.get("title") or {}).get("text", ""))


def _traces(plot: Plot, frame: Frame) -> str:
    """Traces, clipped to the plotting area with a margin for markers."""
    # Both widths of a plot are on one page, so the id of the clip path contains the width.
    clip = f"clip-{plot.key}-{frame.right:.0f}"
    position = f'x="{frame.left - 8:.1f}" y="{frame.top - 8:.1f}"'
    width = frame.right - frame.left + 16
    height = frame.bottom - frame.top + 16
    box = f'<rect {position} width="{width:.1f}" height="{height:.1f}"/>'
    is_stacked = any("stackgroup" in trace for trace in plot.data)
    content = draw_stacked(plot, frame) if is_stacked else draw_overlaid(plot, frame)
    path = f'<clipPath id="{clip}">{box}</clipPath>'
    return f'<defs>{path}</defs><g clip-path="url(#{clip})">{content}</g>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, attributes: str = "") -> str:
    position = f'x="{x:.1f}" y="{y:.1f}"'
    # Titles and names may be escaped for plotly already.
    return f'<text {position} text-anchor="{anchor}"{attributes}>{escape(unescape(text))}</text>'
