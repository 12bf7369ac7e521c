"""What happened during training: metrics of all seeds and arms, and the share of each loss."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from instil.report import text
from instil.report.plots import DASHES, MORE, Plot, arm_color, plotly_text
from instil.report.record import ARMS, Record, finite, mean

Curve = dict[float, float]
"""Epoch -> value."""


def metric_plot(record: Record, metric: str, key: str, title: str) -> Plot | str:
    """A validation metric after each epoch: a thin line a seed, a bold one for their mean."""
    curves = _validation(record, metric)
    arms = [*(arm for arm in ARMS if arm in curves), *(arm for arm in curves if arm not in ARMS)]
    if not arms:
        return f"metrics.jsonl holds no validation {text.display_name(metric)}, so there are no curves of it."
    fraction = all(
        -1 <= value <= 1 for arm in arms for curve in curves[arm] for value in curve.values()
    )
    data = [trace for arm in arms for trace in _lines(arm, curves[arm], fraction)]
    axis: dict[str, Any] = {"tickformat": ".1~%"} if fraction else {}
    layout = {
        "xaxis": {**_epoch_axis(data), "rangemode": "tozero"},
        "yaxis": {**axis, "title": {"text": text.display_name(metric)}},
        "hovermode": "x",
    }
    several = max(len(curves[arm]) for arm in arms) > 1
    caption = f"On the validation split. {'Thin lines are single seeds, bold lines their mean.' if several else 'One line a network.'}"
    ends = ", ".join(
        f"{text.display_name(arm)} {text.amount(mean(curve[max(curve)] for curve in curves[arm]), fraction)}"
        for arm in arms
    )
    return Plot(
        key,
        title,
        caption,
        f"Validation {text.display_name(metric)} against epoch. At the end: {ends}.",
        data,
        layout,
    )


def loss_shares_plot(record: Record) -> Plot | str:
    """How much of the distilled student's training signal each weighted loss is, epoch by epoch."""
    shares: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, epoch, row in _epochs(record, "distilled"):
        losses = {
            name: abs(value)
            for name, part in (row.get("losses") or {}).items()
            if (value := finite(part)) is not None
        }
        for name, value in losses.items():
            shares[name][epoch].append(value / (sum(losses.values()) or 1))
    if not shares:
        return (
            "metrics.jsonl holds no losses of the distilled student, so their shares are not drawn."
        )
    if len(shares) == 1:
        return f"The distilled student learns from one loss alone, {_loss_name(next(iter(shares)), shares)}, so there are no shares to draw."
    data = [
        _area(_loss_name(name, shares), parts, MORE_COLOURS[number % len(MORE_COLOURS)])
        for number, (name, parts) in enumerate(shares.items())
    ]
    axis = {"tickformat": ".0%", "range": [0, 1], "title": {"text": "share of the loss"}}
    layout = {"xaxis": _epoch_axis(data), "yaxis": axis, "hovermode": "x"}
    ends = ", ".join(
        f"{_loss_name(name, shares)} {text.amount(mean(parts[max(parts)]))}"
        for name, parts in shares.items()
    )
    caption = "Each weighted loss as a share of their sum, mean over seeds. A loss that falls to nothing no longer teaches anything."
    return Plot(
        "shares",
        "What the student learns from",
        caption,
        f"Share of each loss in the total. At the end: {ends}.",
        data,
        layout,
    )


MORE_COLOURS = ("#0f9a83", "#3d8bd4", "#d97a2b", "#b065b3", *MORE)


def _epoch_axis(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Whole epochs also where there are few."""
    last = max(max(trace["x"], default=0) for trace in data)
    return {"title": {"text": "epoch"}, **({"dtick": 1} if last <= 10 else {})}


def _area(name: str, parts: dict[float, list[float]], color: str) -> dict[str, Any]:
    epochs = sorted(parts)
    return {
        "type": "scatter",
        "mode": "lines",
        "stackgroup": "one",
        "x": epochs,
        "y": [mean(parts[epoch]) for epoch in epochs],
        "line": {"width": 1, "color": color},
        "name": plotly_text(name),
        "hovertemplate": "%{y:.1%}<extra>%{fullData.name}</extra>",
    }


def _loss_name(name: str, all_names: dict[str, Any]) -> str:
    """Without the learner, where there is only one."""
    alone = len({other.partition("/")[0] for other in all_names}) == 1
    return name.partition("/")[2] or name if alone else name


def _epochs(record: Record, arm: str) -> Iterator[tuple[Any, float, dict[str, Any]]]:
    """(seed, epochs done, row) of an arm; later stages follow on, and several rows in one epoch share it out evenly."""
    rows = [
        row
        for row in record.metrics
        if row.get("arm") == arm and finite(row.get("epoch")) is not None
    ]
    rows = list(
        {
            tuple(row.get(key) for key in ("seed", "stage", "epoch", "step")): row for row in rows
        }.values()
    )  # a resumed run tells some twice
    first = min((row["epoch"] for row in rows), default=0)
    offset, last = {}, 0
    for stage in sorted({row.get("stage") or 0 for row in rows}):
        offset[stage] = last
        last += max(row["epoch"] for row in rows if (row.get("stage") or 0) == stage) - first + 1
    where = [(row.get("seed"), row.get("stage") or 0, row["epoch"]) for row in rows]
    total, seen = Counter(where), Counter[Any]()
    for row, place in zip(rows, where, strict=True):
        seen[place] += 1
        yield place[0], offset[place[1]] + place[2] - first + seen[place] / total[place], row


def _validation(record: Record, metric: str) -> dict[str, list[Curve]]:
    """Arm -> one curve a seed."""
    found: dict[str, list[Curve]] = {}
    for arm in dict.fromkeys(str(row.get("arm")) for row in record.metrics):
        curves: dict[Any, Curve] = defaultdict(dict)
        for seed, epoch, row in _epochs(record, arm):
            validation = row.get("validation")
            if (
                isinstance(validation, dict)
                and (value := finite(validation.get(metric))) is not None
            ):
                curves[seed][epoch] = value
        if curves:
            found[arm] = list(curves.values())
    return found


def _lines(arm: str, curves: list[Curve], fraction: bool) -> Iterator[dict[str, Any]]:
    line = {"color": arm_color(arm), "dash": DASHES.get(arm, "solid")}
    shown = "%{y:.1%}" if fraction else "%{y:.3f}"
    for curve in curves if len(curves) > 1 else ():
        x = sorted(curve)
        y = [curve[epoch] for epoch in x]
        yield {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {**line, "width": 1},
            "opacity": 0.35,
            "showlegend": False,
            "hoverinfo": "skip",
        }
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    yield {
        "type": "scatter",
        "mode": "lines" if len(common) > 1 else "markers",
        "x": common,
        "y": [mean(curve[epoch] for curve in curves) for epoch in common],
        "line": {**line, "width": 3 if arm == "distilled" else 2.25},
        "marker": {"color": arm_color(arm), "size": 9},
        "name": plotly_text(text.display_name(arm)),
        "hovertemplate": f"{shown}<extra>%{{fullData.name}}</extra>",
    }
