"""What the run came to, as plots: the gains with their intervals, and speed against quality."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from instil.report import text
from instil.report.record import Record

COLOURS = {
    "teacher": "#7d8794",
    "alone": "#d97a2b",
    "label_smoothing": "#b065b3",
    "pseudo_labels": "#3d8bd4",
    "distilled": "#0f9a83",
}
MORE = ("#a08a14", "#c2504d", "#6f78d6", "#6b9a3a", "#9a6b4f")
DASHES = {"teacher": "dot", "label_smoothing": "dash", "pseudo_labels": "dashdot"}
BUSY = 3
"""Times the median from which a 90th percentile shows a busy machine."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")


@dataclass(frozen=True)
class Plot:
    """Traces and layout for plotly; ``caption`` says what is seen, ``summary`` the same for those who cannot see it."""

    key: str
    title: str
    caption: str
    summary: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 340


def arm_color(arm: str) -> str:
    """The colour of an arm in all plots and tables; legible on white and on black."""
    return COLOURS.get(arm) or MORE[sum(arm.encode()) % len(MORE)]


def plotly_text(words: str) -> str:
    """Text that plotly shows as it is, since plotly reads tags and entities."""
    return escape(words, quote=False)


def gain_plot(record: Record) -> Plot | str:
    """Distilled minus each baseline, with its interval."""
    rows = [("alone", ("gain",)), *((arm, ("gains", arm)) for arm in (record.at("gains") or {}))]
    known = [(arm, record.number(*path, "mean"), record.interval(*path)) for arm, path in rows]
    found = [
        (arm, mean, interval)
        for arm, mean, interval in known
        if mean is not None and interval is not None
    ]
    if not found:
        return "With one seed, or no student alone, a gain has no interval, so none is drawn."
    data = [_gain(record, arm, mean, ends) for arm, mean, ends in found]
    unit = "percentage points" if record.fraction else text.display_name(record.metric)
    unit = f"reduction of {unit}" if record.lower_is_better else unit
    layout = {
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero", "zeroline": True},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
        "accent": "zero",
    }
    said = "; ".join(
        f"over {text.display_name(arm).lower()}: {_gain_words(record, mean, *ends)}"
        for arm, mean, ends in found
    )
    caption = "An interval that stays clear of zero is a difference larger than the noise between seeds. A hollow mark is not."
    title = "Gain of the distilled student over …"
    return Plot(
        "gains",
        title,
        caption,
        f"Gain of the distilled student {said}.",
        data,
        layout,
        90 + 44 * len(found),
    )


def _gain(record: Record, arm: str, mean: float, ends: tuple[float, float]) -> dict[str, Any]:
    color, scale, clear = (
        arm_color("distilled"),
        100 if record.fraction else 1,
        ends[0] > 0 or ends[1] < 0,
    )
    bar = {
        "type": "data",
        "symmetric": False,
        "array": [(ends[1] - mean) * scale],
        "arrayminus": [(mean - ends[0]) * scale],
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [mean * scale],
        "y": [f"{plotly_text(text.display_name(arm).lower())} "],
        "error_x": {**bar, "color": color, "thickness": 2.5, "width": 7},
        "marker": {
            "size": 13,
            "color": color,
            "symbol": "circle" if clear else "circle-open",
            "line": {"width": 2, "color": color},
        },
        "hovertemplate": f"{plotly_text(_gain_words(record, mean, *ends))}<extra></extra>",
        "showlegend": False,
    }


def _gain_words(record: Record, mean: float, low: float, high: float) -> str:
    parts = (text.points(value, record.fraction, sign=False) for value in (mean, low, high))
    return "{} ({} to {})".format(*parts)


def speed_quality_plot(record: Record) -> Plot | str:
    """Latency against the headline metric, for every network and file that has both."""
    known = [
        (words, arm, _latency(record, place), value)
        for words, arm, place, value in _networks(record)
    ]
    found = [
        (words, arm, latency, value)
        for words, arm, latency, value in known
        if latency is not None and value[0] is not None
    ]
    if not found:
        return "Latency was not measured, so it is not drawn against quality."
    data = [
        _point(
            words, arm_color(arm), SYMBOLS[number % len(SYMBOLS)], latency, value, record.fraction
        )
        for number, (words, arm, latency, value) in enumerate(found)
    ]
    medians = [latency[0] for _, _, latency, _ in found]
    slowest = max(latency[1] for _, _, latency, _ in found)
    wide = (
        {"type": "log", "dtick": "D2", "tickformat": "~g"}
        if min(medians) > 0 and slowest > 8 * min(medians)
        else {"rangemode": "tozero"}
    )
    layout = {
        "xaxis": {
            "title": {"text": f"latency, ms{', logarithmic' if 'type' in wide else ''}"},
            **wide,
        },
        "yaxis": {
            **({"tickformat": ".1~%"} if record.fraction else {}),
            "title": {"text": f"test {text.display_name(record.metric)}"},
        },
    }
    better = "Down" if record.lower_is_better else "Up"
    caption = f"{better} and to the left is better. Bars: to the 90th percentile of the latency, "
    caption += "and one standard deviation between seeds."
    if any(latency[1] > BUSY * latency[0] for _, _, latency, _ in found):
        caption += " A 90th percentile far above the median means that other programs used the processor; measure again on a quiet machine."
    said = "; ".join(
        f"{words} {text.milliseconds(latency[0])} at {text.amount(value[0], record.fraction)}"
        for words, _, latency, value in found
    )
    return Plot(
        "trade",
        "Speed against quality",
        caption,
        f"Median latency and {text.display_name(record.metric)}: {said}.",
        data,
        layout,
        380,
    )


def exported_value(record: Record) -> float | None:
    """The headline metric of the one student that was exported: as measured on the file, or of its seed."""
    measured = record.number("export", "onnx", record.metric)
    values = dict(
        zip(map(str, record.seeds), record.values("distilled", record.metric), strict=False)
    )
    return (
        measured
        if measured is not None
        else values.get(
            str(record.at("exported_seed")), record.number("distilled", record.metric, "mean")
        )
    )


Network = tuple[str, str, tuple[str, ...], tuple[float | None, float | None]]


def _networks(record: Record) -> list[Network]:
    """Name, arm, where its cost stands, and the headline metric with its deviation. An exported file is one seed's."""
    rows: list[Network] = []
    for arm in ("teacher", "alone", "distilled"):
        value = record.number(arm, record.metric, "mean"), record.number(arm, record.metric, "std")
        rows.append(
            (
                text.display_name(arm),
                arm,
                ("cost", "teacher" if arm == "teacher" else "student"),
                value,
            )
        )
    rows.append(
        ("Distilled, ONNX", "distilled", ("export", "onnx"), (exported_value(record), None))
    )
    rows.append(
        (
            "Distilled, ONNX int8",
            "distilled",
            ("export", "int8"),
            (record.number("export", "int8", record.metric), None),
        )
    )
    return rows


def _latency(record: Record, place: tuple[str, ...]) -> tuple[float, float] | None:
    median, p90 = (
        record.number(*place, "latency", "median_ms"),
        record.number(*place, "latency", "p90_ms"),
    )
    return None if median is None else (median, max(median, p90 or median))


def _point(
    words: str,
    color: str,
    symbol: str,
    latency: tuple[float, float],
    value: tuple[float | None, float | None],
    fraction: bool,
) -> dict[str, Any]:
    thin = {"thickness": 1.5, "width": 4, "color": color}
    shown = "%{y:.1%}" if fraction else "%{y:.3f}"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [latency[0]],
        "y": [value[0]],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [latency[1] - latency[0]],
            "arrayminus": [0],
            **thin,
        },
        "error_y": {"type": "data", "array": [value[1] or 0], **thin},
        "marker": {"size": 13, "color": color, "symbol": symbol},
        "name": plotly_text(words),
        "hovertemplate": f"%{{x:.3g}} ms, {shown}<extra>{plotly_text(words)}</extra>",
    }
