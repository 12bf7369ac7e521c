"""Plots of the trainings: validation metrics, and the share of each loss."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from instil.report.epochs import epoch_rows
from instil.report.names import display_name
from instil.report.plots import DASHES, OTHER_COLORS, Plot, plotly_text
from instil.report.quantities import amount
from instil.report.record import Record, finite, mean_of, ordered_arms

Curve = dict[float, float]
"""Epoch -> value."""
Shares = dict[str, dict[float, list[float]]]
"""Loss -> epoch -> one share for each seed."""

LOSS_COLORS = ("#0f9a83", "#3d8bd4", "#d97a2b", "#b065b3", *OTHER_COLORS)


def metric_plot(record: Record, metric: str, key: str, title: str) -> Plot | str:
    """Validation metric after each epoch: a thin line for each seed, a bold one for their mean.

    Args:
        record: run.
        metric: name of the metric.
        key: key of the plot.
        title: heading of the plot.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    curves = _validation_curves(record, metric)
    arms = ordered_arms(curves)
    name = display_name(metric)
    if not arms:
        return f"metrics.jsonl has no validation {name}, so there are no curves of it."
    is_fraction = all(_is_fraction(curves[arm]) for arm in arms) and not record.is_number(metric)
    data: list[dict[str, Any]] = []
    ends = []
    for arm in arms:
        data += _lines(record, arm, curves[arm], is_fraction)
        last = mean_of(curve[max(curve)] for curve in curves[arm])
        ends.append(f"{record.arm_name(arm)} {amount(last, is_fraction)}")
    y_axis: dict[str, Any] = {"tickformat": ".1~%"} if is_fraction else {}
    layout = {
        "xaxis": {**_epoch_axis(data), "rangemode": "tozero"},
        "yaxis": {**y_axis, "title": {"text": name}},
        "hovermode": "x",
    }
    has_seeds = max(len(curves[arm]) for arm in arms) > 1
    lines = "Thin lines are single seeds, bold lines their mean." if has_seeds else ""
    caption = f"On the validation split. {lines or 'One line per network.'}"
    summary = f"Validation {name} against epoch. At the end: {', '.join(ends)}."
    return Plot(key, title, caption, summary, data, layout)


def loss_shares_plot(record: Record) -> Plot | str:
    """Share of each weighted loss in the training signal of the distilled student.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    shares = _loss_shares(record)
    if not shares:
        return "metrics.jsonl has no losses of the distilled student, so there are no shares."
    names = _short_names(list(shares))
    if len(shares) == 1:
        (name,) = names.values()
        return (
            f"The distilled student learns from one loss only, {name}, so there are no shares to "
            "draw."
        )
    data = [
        _area(names[loss], shares[loss], LOSS_COLORS[index % len(LOSS_COLORS)])
        for index, loss in enumerate(shares)
    ]
    ends = [f"{names[loss]} {amount(mean_of(s[max(s)]))}" for loss, s in shares.items()]
    y_axis = {"tickformat": ".0%", "range": [0, 1], "title": {"text": "share of the loss"}}
    return Plot(
        "shares",
        "Share of each loss",
        "Each weighted loss as a share of their sum, mean over seeds. A loss whose share falls to "
        "zero has no effect any more.",
        f"Share of each loss in the total. At the end: {', '.join(ends)}.",
        data,
        {"xaxis": _epoch_axis(data), "yaxis": y_axis, "hovermode": "x"},
    )


def _validation_curves(record: Record, metric: str) -> dict[str, list[Curve]]:
    """Curves of each arm, one for each seed."""
    arms: dict[str, list[Curve]] = {}
    for arm in dict.fromkeys(str(row.get("arm")) for row in record.metrics):
        curves: dict[Any, Curve] = defaultdict(dict)
        for seed, epoch, row in epoch_rows(record, arm):
            validation = row.get("validation")
            value = finite(validation.get(metric)) if isinstance(validation, dict) else None
            if value is not None:
                curves[seed][epoch] = value
        if curves:
            arms[arm] = list(curves.values())
    return arms


def _is_fraction(curves: list[Curve]) -> bool:
    values = itertools.chain.from_iterable(curve.values() for curve in curves)
    return all(-1 <= value <= 1 for value in values)


def _lines(
    record: Record, arm: str, curves: list[Curve], is_fraction: bool
) -> Iterator[dict[str, Any]]:
    color = record.arm_color(arm)
    line = {"color": color, "dash": DASHES.get(arm, "solid")}
    for curve in curves if len(curves) > 1 else ():
        x = sorted(curve)
        yield {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": [curve[epoch] for epoch in x],
            "line": {**line, "width": 1},
            "opacity": 0.35,
            "showlegend": False,
            "hoverinfo": "skip",
        }
    # A mean over fewer seeds would jump where a seed ends early, so only common epochs have one.
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    value = "%{y:.1%}" if is_fraction else "%{y:.3f}"
    yield {
        "type": "scatter",
        "mode": "lines" if len(common) > 1 else "markers",
        "x": common,
        "y": [mean_of(curve[epoch] for curve in curves) for epoch in common],
        "line": {**line, "width": 3 if arm == "distilled" else 2.25},
        "marker": {"color": color, "size": 9},
        "name": plotly_text(record.arm_name(arm)),
        "hovertemplate": f"{value}<extra>%{{fullData.name}}</extra>",
    }


def _loss_shares(record: Record) -> Shares:
    shares: Shares = defaultdict(lambda: defaultdict(list))
    for _, epoch, row in epoch_rows(record, "distilled"):
        losses = {name: finite(value) for name, value in (row.get("losses") or {}).items()}
        # Signed losses could cancel out, so shares are those of the absolute values.
        sizes = {name: abs(value) for name, value in losses.items() if value is not None}
        total = sum(sizes.values()) or 1
        for name, value in sizes.items():
            shares[name][epoch].append(value / total)
    return shares


def _short_names(losses: list[str]) -> dict[str, str]:
    """Names of losses, without the learner if all losses have the same one."""
    if len({loss.partition("/")[0] for loss in losses}) > 1:
        return {loss: loss for loss in losses}
    return {loss: loss.partition("/")[2] or loss for loss in losses}


def _area(name: str, shares: dict[float, list[float]], color: str) -> dict[str, Any]:
    epochs = sorted(shares)
    return {
        "type": "scatter",
        "mode": "lines",
        "stackgroup": "one",
        "x": epochs,
        "y": [mean_of(shares[epoch]) for epoch in epochs],
        "line": {"width": 1, "color": color},
        "name": plotly_text(name),
        "hovertemplate": "%{y:.1%}<extra>%{fullData.name}</extra>",
    }


def _epoch_axis(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Axis with ticks at whole epochs, also if there are few."""
    last = max(max(trace["x"], default=0) for trace in data)
    ticks = {"dtick": 1} if last <= 10 else {}
    return {"title": {"text": "epoch"}, **ticks}
