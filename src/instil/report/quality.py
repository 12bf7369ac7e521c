"""How the networks err, as plots: reliability and confusion."""

from __future__ import annotations

from typing import Any

from instil.report import text
from instil.report.plots import DASHES, Plot, arm_color, plotly_text
from instil.report.record import Record, finite

MOST_CLASSES = 100
"""Of a confusion matrix that is still drawn."""


def calibration_plot(record: Record) -> Plot | str:
    """Accuracy against confidence, before (alone) and after (distilled), beside the teacher."""
    data: list[dict[str, Any]] = [_diagonal()]
    for arm in (
        arm
        for arm in ("teacher", "alone", "distilled")
        if isinstance(record.at("details", arm, "calibration"), list)
    ):
        bins = [
            row
            for row in record.at("details", arm, "calibration")
            if isinstance(row, dict) and finite(row.get("count"))
        ]
        bins = [
            row
            for row in bins
            if row["count"] > 0
            and finite(row.get("confidence")) is not None
            and finite(row.get("accuracy")) is not None
        ]
        most = max((row["count"] for row in bins), default=1)
        if bins:
            data.append(_bins(arm, bins, most))
    if len(data) == 1:
        return "Calibration was not measured, so there is no reliability diagram."
    errors = [
        f"{text.display_name(arm)} {text.amount(value)}"
        for arm in ("teacher", "alone", "distilled")
        if (value := record.number(arm, "ece", "mean")) is not None
    ]
    axis = {"range": [0, 1.02], "tickformat": ".0%"}
    layout = {
        "xaxis": {**axis, "title": {"text": "confidence"}},
        "yaxis": {**axis, "title": {"text": "accuracy"}},
    }
    caption = "On the diagonal, confidence is what it claims to be; below it, a network is too sure of itself, above it not sure enough. "
    caption += f"Larger marks hold more samples{seed_note(record)}."
    said = (
        f"Reliability diagram; expected calibration error: {', '.join(errors) or 'not measured'}."
    )
    return Plot("calibration", "Calibration before and after", caption, said, data, layout, 460)


def seed_note(record: Record) -> str:
    """Which of several seeds the details are of: the first."""
    return f" (seed {record.seeds[0]})" if len(record.seeds) > 1 else ""


def _diagonal() -> dict[str, Any]:
    line = {"dash": "dot", "width": 1.5, "color": "#8a8f98"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": line,
        "name": "perfect",
        "hoverinfo": "skip",
    }


def _bins(arm: str, bins: list[dict[str, Any]], most: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row["confidence"] for row in bins],
        "y": [row["accuracy"] for row in bins],
        "customdata": [row["count"] for row in bins],
        "marker": {
            "size": [5 + 11 * (row["count"] / most) ** 0.5 for row in bins],
            "color": arm_color(arm),
            "opacity": 0.9,
        },
        "line": {"color": arm_color(arm), "width": 2, "dash": DASHES.get(arm, "solid")},
        "name": plotly_text(text.display_name(arm)),
        "hovertemplate": "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata} samples<extra>%{fullData.name}</extra>",
    }


def confusion_plot(record: Record) -> Plot | str:
    """Confusion matrix of the distilled student."""
    counts = record.at("details", "distilled", "confusion")
    n = len(counts) if isinstance(counts, list) else 0
    if not n or not all(
        isinstance(row, list) and len(row) == n and all(finite(value) is not None for value in row)
        for row in counts
    ):
        return "There is no confusion matrix of the distilled student."
    names = record.classes if len(record.classes) == n else [str(number) for number in range(n)]
    if n > MOST_CLASSES:
        return f"A confusion matrix of {n} classes is too large to read. {_worst(names, counts)}"
    short = [plotly_text(name if len(name) <= 14 else name[:13] + "…") for name in names]
    ticks = (
        {"tickvals": list(range(n)), "ticktext": short, "showgrid": False, "zeroline": False}
        if n <= 30
        else {"showgrid": False}
    )
    across = {
        "title": {"text": "predicted class"},
        "tickangle": 0 if max(map(len, short)) <= 3 else -45,
    }
    layout = {
        "xaxis": {**ticks, **across},
        "yaxis": {**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
    }
    worst = f"{_worst(names, counts).removesuffix('.')}{seed_note(record)}."
    said = f"Confusion matrix of the distilled student. {worst}"
    return Plot(
        "confusion",
        "Confusion matrix of the distilled student",
        worst,
        said,
        [_cells(names, counts)],
        layout,
        460,
    )


def _cells(names: list[str], counts: list[list[float]]) -> dict[str, Any]:
    """Right answers towards the positive colour, mistakes towards the negative one; roots, so that rare mistakes are seen."""
    shares = [[value / (sum(row) or 1) for value in row] for row in counts]
    signed = [
        [share**0.5 if true == guess else -(share**0.5) for guess, share in enumerate(row)]
        for true, row in enumerate(shares)
    ]
    n = len(names)
    return {
        "type": "heatmap",
        "z": signed,
        "customdata": [
            [
                [plotly_text(names[i]), plotly_text(names[j]), counts[i][j], shares[i][j]]
                for j in range(n)
            ]
            for i in range(n)
        ],
        "text": [[f"{value:g}" if value else "" for value in row] for row in counts],
        "texttemplate": "%{text}" if n <= 20 else "",
        "hovertemplate": "%{customdata[0]} predicted as %{customdata[1]}: %{customdata[2]} (%{customdata[3]:.1%})<extra></extra>",
        "zmin": -1,
        "zmax": 1,
        "xgap": 1 if n <= 30 else 0,
        "ygap": 1 if n <= 30 else 0,
        "showscale": False,
    }


def _worst(names: list[str], counts: list[list[float]]) -> str:
    wrong = [
        (value, true, guess)
        for true, row in enumerate(counts)
        for guess, value in enumerate(row)
        if true != guess and value > 0
    ]
    if not wrong:
        return "No test sample is wrong."
    worst = sorted(wrong, key=lambda mistake: -mistake[0])[:3]
    return (
        "Most frequent mistakes: "
        + ", ".join(
            f"{names[true]} predicted as {names[guess]} ({value:g})" for value, true, guess in worst
        )
        + "."
    )
