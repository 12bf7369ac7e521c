"""Plot of latency against the headline metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from instil.report.names import display_name
from instil.report.plots import SYMBOLS, Plot, arm_color, plotly_text
from instil.report.quantities import amount, milliseconds
from instil.report.record import Record

BUSY = 3
"""Ratio of 90th percentile and median of a latency above which the machine was busy."""
LOGARITHMIC = 8
"""Ratio of the slowest and the fastest network above which the latency has a logarithmic axis."""


@dataclass(frozen=True)
class TimedNetwork:
    """Network or exported file with its latency and headline metric.

    Args:
        name: name in the legend.
        arm: arm that gives the colour.
        median: median latency in ms.
        p90: 90th percentile of the latency in ms, at least the median.
        value: headline metric.
        std: standard deviation of the headline metric over seeds; None for a single seed.
    """

    name: str
    arm: str
    median: float
    p90: float
    value: float
    std: float | None


def speed_quality_plot(record: Record) -> Plot | str:
    """Latency against the headline metric, for each network and file that has both.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    networks = _timed_networks(record)
    if not networks:
        return "Latency was not measured, so it is not drawn against quality."
    metric = display_name(record.metric)
    texts = [
        f"{network.name} {milliseconds(network.median)} at "
        f"{amount(network.value, record.is_fraction)}"
        for network in networks
    ]
    data = [
        _trace(network, SYMBOLS[index % len(SYMBOLS)], record.is_fraction)
        for index, network in enumerate(networks)
    ]
    return Plot(
        "speed-quality",
        "Speed against quality",
        _caption(record, networks),
        f"Median latency and {metric}: {'; '.join(texts)}.",
        data,
        _layout(record, networks),
        380,
    )


def exported_value(record: Record) -> float | None:
    """Headline metric of the exported student.

    It is the metric measured on the ONNX file, else that of the exported seed, else the mean over
    seeds.
    """
    on_file = record.get_number("export", "onnx", record.metric)
    if on_file is not None:
        return on_file
    seeds = [str(seed) for seed in record.seeds]
    values = dict(zip(seeds, record.values(record.exported_arm, record.metric), strict=False))
    mean = record.mean(record.exported_arm, record.metric)
    return values.get(str(record.get("exported_seed")), mean)


def _timed_networks(record: Record) -> list[TimedNetwork]:
    rows: list[tuple[str, str, tuple[str, ...], float | None, float | None]] = []
    exported = record.exported_arm
    for arm in dict.fromkeys(("teacher", "alone", "distilled", exported)):
        std = record.get_number(arm, record.metric, "std")
        value = record.mean(arm, record.metric)
        rows.append((record.arm_name(arm), arm, record.cost_path(arm), value, std))
    # An exported file holds the student of one seed, so it has no standard deviation.
    on_int8 = record.get_number("export", "int8", record.metric)
    name = "Distilled" if exported == "distilled" else record.arm_name(exported)
    rows.append((f"{name}, ONNX", exported, ("export", "onnx"), exported_value(record), None))
    rows.append((f"{name}, ONNX int8", exported, ("export", "int8"), on_int8, None))
    networks = []
    for name, arm, path, value, std in rows:
        median = record.get_number(*path, "latency", "median_ms")
        p90 = record.get_number(*path, "latency", "p90_ms")
        if median is not None and value is not None:
            networks.append(TimedNetwork(name, arm, median, max(median, p90 or median), value, std))
    return networks


def _layout(record: Record, networks: list[TimedNetwork]) -> dict[str, Any]:
    fastest = min(network.median for network in networks)
    slowest = max(network.p90 for network in networks)
    x_axis: dict[str, Any] = {"title": {"text": "latency, ms"}, "rangemode": "tozero"}
    if fastest > 0 and slowest > LOGARITHMIC * fastest:
        title = {"text": "latency, ms, logarithmic"}
        x_axis = {"title": title, "type": "log", "dtick": "D2", "tickformat": "~g"}
    y_axis: dict[str, Any] = {"tickformat": ".1~%"} if record.is_fraction else {}
    return {
        "xaxis": x_axis,
        "yaxis": {**y_axis, "title": {"text": f"test {display_name(record.metric)}"}},
    }


def _caption(record: Record, networks: list[TimedNetwork]) -> str:
    better = "Down" if record.lower_is_better else "Up"
    caption = (
        f"{better} and to the left is better. Horizontal bars end at the 90th percentile of the "
        "latency; vertical bars are one standard deviation between seeds."
    )
    if any(network.p90 > BUSY * network.median for network in networks):
        caption += (
            " A 90th percentile far above the median means that other programs used the processor; "
            "measure again on an idle machine."
        )
    return caption


def _trace(network: TimedNetwork, symbol: str, is_fraction: bool) -> dict[str, Any]:
    color = arm_color(network.arm)
    bar = {"type": "data", "thickness": 1.5, "width": 4, "color": color}
    value = "%{y:.1%}" if is_fraction else "%{y:.3f}"
    name = plotly_text(network.name)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [network.median],
        "y": [network.value],
        "error_x": {
            **bar,
            "symmetric": False,
            "array": [network.p90 - network.median],
            "arrayminus": [0],
        },
        "error_y": {**bar, "array": [network.std or 0]},
        "marker": {"size": 13, "color": color, "symbol": symbol},
        "name": name,
        "hovertemplate": f"%{{x:.3g}} ms, {value}<extra>{name}</extra>",
    }
