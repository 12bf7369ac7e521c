"""Plots of the results of one setting: scores, curves, and quality against cost."""

from __future__ import annotations

from typing import Any

from instil.comparison.labels import SHOWN, colors, result_labels, score_text, symbol
from instil.comparison.results import Setting, SettingGroup, TrainedResult
from instil.report.names import display_name
from instil.report.plots import Plot, plotly_text

COSTS = {
    "latency": ("latency, ms", "Latency"),
    "num_bytes": ("size, bytes", "Size"),
    "parameters": ("parameters", "Parameters"),
}
"""Attribute of a result -> title of the axis, and title of the plot."""
LOGARITHMIC = 8
"""Ratio of the largest and the smallest cost above which the axis is logarithmic."""


def score_plot(group: SettingGroup, index: int) -> Plot:
    """Return mean test scores with 95 % intervals.

    Args:
        group: results of one setting.
        index: index of the group on the page.
    """
    rows = group.results
    names = result_labels(group)
    palette = colors([row.method for row in rows])
    data = [
        _score_trace(row, name, color)
        for row, name, color in zip(rows, names, palette, strict=True)
    ]
    texts = [
        f"{name} {score_text(group.setting, row.mean)}"
        for name, row in zip(names, rows, strict=True)
    ]
    layout = {
        "xaxis": _score_axis(group.setting),
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    caption = (
        "Mean over seeds with the 95 % interval of Student's t. A result of one seed has no "
        "interval."
    )
    return Plot(
        f"scores-{index}",
        "Test scores",
        caption,
        f"Test {display_name(group.setting.metric)}: {', '.join(texts)}.",
        data,
        layout,
        80 + 30 * len(rows),
    )


def _score_trace(row: TrainedResult, name: str, color: str) -> dict[str, Any]:
    """Return the marker of a result with its interval."""
    low, high = row.interval or (row.mean, row.mean)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [high - row.mean],
        "arrayminus": [row.mean - low],
        "color": color,
        "thickness": 2.5,
        "width": 6,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row.mean],
        "y": [f"{plotly_text(name)} "],
        "error_x": bars,
        "marker": {"size": 11, "color": color, "symbol": "circle"},
        "showlegend": False,
    }


def curve_plot(group: SettingGroup, index: int) -> Plot | str:
    """Return validation curves of the best results, or a sentence if there are none.

    Args:
        group: results of one setting.
        index: index of the group on the page.
    """
    named = [
        (row, name)
        for row, name in zip(group.results, result_labels(group), strict=True)
        if len(row.curve) > 1
    ]
    if not named:
        return "No result has a validation curve."
    shown = named[:SHOWN]
    data, ends = [], []
    palette = colors([row.method for row, _ in shown])
    for (row, name), color in zip(shown, palette, strict=True):
        steps, scores = zip(*row.curve, strict=True)
        ends.append(f"{name} {score_text(group.setting, scores[-1])}")
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plotly_text(name),
                "x": list(steps),
                "y": list(scores),
                "line": {"color": color, "width": 2.5},
            }
        )
    title = f"Validation {display_name(group.setting.metric)}"
    layout = {
        "xaxis": {"title": {"text": "optimizer steps"}, "rangemode": "tozero"},
        "yaxis": _score_axis(group.setting, "validation"),
    }
    caption = "Mean over seeds of a run; best trial of a search."
    if len(named) > SHOWN:
        caption += f" The {SHOWN} results with the best test scores are drawn."
    summary = f"{title} at the end: {', '.join(ends)}."
    return Plot(f"curves-{index}", title, caption, summary, data, layout)


def cost_plots(group: SettingGroup, index: int) -> list[Plot]:
    """Return quality against latency, size and parameters, where two results differ in them.

    Args:
        group: results of one setting.
        index: index of the group on the page.
    """
    plots = []
    for attribute in COSTS:
        rows = [row for row in group.results if getattr(row, attribute) is not None]
        # A baseline has the network of the student, so its point would hide that of the method.
        points = _best_of_equal_cost(rows, attribute)
        if len(points) > 1:
            plots.append(_cost_plot(group, index, attribute, points))
    return plots


def _best_of_equal_cost(rows: list[TrainedResult], attribute: str) -> list[TrainedResult]:
    best: dict[Any, TrainedResult] = {}
    for row in rows:
        best.setdefault((row.kind == "teacher", row.student, getattr(row, attribute)), row)
    return list(best.values())[: 2 * SHOWN]


def _cost_plot(
    group: SettingGroup, index: int, attribute: str, points: list[TrainedResult]
) -> Plot:
    names = dict(zip(group.results, result_labels(group), strict=True))
    palette = colors([row.method for row in points])
    data, texts = [], []
    for position, (row, color) in enumerate(zip(points, palette, strict=True)):
        cost = getattr(row, attribute)
        texts.append(f"{names[row]} {score_text(group.setting, row.mean)} at {cost:.4g}")
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plotly_text(names[row]),
                "x": [cost],
                "y": [row.mean],
                "marker": {"size": 12, "color": color, "symbol": symbol(position)},
            }
        )
    axis_title, title = COSTS[attribute]
    costs = [getattr(row, attribute) for row in points]
    x_axis: dict[str, Any] = {"title": {"text": axis_title}, "rangemode": "tozero"}
    if min(costs) > 0 and max(costs) > LOGARITHMIC * min(costs):
        x_axis = {"title": {"text": f"{axis_title}, logarithmic"}, "type": "log"}
    better = "Up" if group.setting.higher_is_better else "Down"
    return Plot(
        f"{attribute}-{index}",
        f"Quality against {title.lower()}",
        f"{better} and to the left is better. The best result of each network.",
        f"{title}: {'; '.join(texts)}.",
        data,
        {"xaxis": x_axis, "yaxis": _score_axis(group.setting)},
        is_half_width=True,
    )


def _score_axis(setting: Setting, split: str = "test") -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": f"{split} {display_name(setting.metric)}"}}
    return axis | ({"tickformat": ".1~%"} if setting.is_fraction else {})
