"""Plots of the predictions: reliability diagram and confusion matrix."""

from __future__ import annotations

from typing import Any

from instil.report.names import display_name
from instil.report.plots import DASHES, Plot, arm_color, plotly_text
from instil.report.quantities import amount
from instil.report.record import Record, finite

MOST_CLASSES = 100
"""Largest confusion matrix that is drawn."""
MOST_NAMES = 30
"""Largest number of classes whose names are drawn, and whose cells have a gap."""
MOST_COUNTS = 20
"""Largest number of classes whose counts are drawn."""
LONGEST_NAME = 14
ARMS = ("teacher", "alone", "distilled")


def calibration_plot(record: Record) -> Plot | str:
    """Accuracy against confidence for teacher, student alone and distilled student.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    data = [_diagonal()]
    errors = []
    for arm in ARMS:
        bins = _filled_bins(record, arm)
        error = record.mean(arm, "ece")
        if bins:
            data.append(_reliability(arm, bins))
        if error is not None:
            errors.append(f"{display_name(arm)} {amount(error)}")
    if len(data) == 1:
        return "Calibration was not measured, so there is no reliability diagram."
    axis = {"range": [0, 1.02], "tickformat": ".0%"}
    return Plot(
        "calibration",
        "Calibration before and after distillation",
        "On the diagonal, confidence equals accuracy. Below it a network is overconfident, above "
        f"it underconfident. Larger marks hold more samples{seed_note(record)}.",
        f"Reliability diagram; expected calibration error: {', '.join(errors) or 'not measured'}.",
        data,
        {
            "xaxis": {**axis, "title": {"text": "confidence"}},
            "yaxis": {**axis, "title": {"text": "accuracy"}},
        },
        460,
    )


def seed_note(record: Record) -> str:
    """Seed of the details of a run, which are those of the exported student."""
    return f" (seed {_details_seed(record)})" if len(record.seeds) > 1 else ""


def _details_seed(record: Record) -> Any:
    seed = record.get("exported_seed")
    return record.seeds[0] if seed is None else seed


def _filled_bins(record: Record, arm: str) -> list[dict[str, Any]]:
    """Bins of the reliability diagram that hold samples."""
    bins = []
    for row in record.get_list("details", arm, "calibration"):
        values = row if isinstance(row, dict) else {}
        count = finite(values.get("count")) or 0
        is_complete = None not in (
            finite(values.get("confidence")),
            finite(values.get("accuracy")),
        )
        if count > 0 and is_complete:
            bins.append(row)
    return bins


def _diagonal() -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"dash": "dot", "width": 1.5, "color": "#8a8f98"},
        "name": "perfect",
        "hoverinfo": "skip",
    }


def _reliability(arm: str, bins: list[dict[str, Any]]) -> dict[str, Any]:
    most = max(row["count"] for row in bins)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row["confidence"] for row in bins],
        "y": [row["accuracy"] for row in bins],
        "customdata": [row["count"] for row in bins],
        "marker": {
            # The area of a mark is proportional to the number of samples.
            "size": [5 + 11 * (row["count"] / most) ** 0.5 for row in bins],
            "color": arm_color(arm),
            "opacity": 0.9,
        },
        "line": {"color": arm_color(arm), "width": 2, "dash": DASHES.get(arm, "solid")},
        "name": plotly_text(display_name(arm)),
        "hovertemplate": "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata} samples"
        "<extra>%{fullData.name}</extra>",
    }


def confusion_plot(record: Record) -> Plot | str:
    """Confusion matrix of the distilled student.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    counts = record.get_list("details", "distilled", "confusion")
    num_classes = len(counts)
    is_square = all(
        isinstance(row, list) and len(row) == num_classes and None not in map(finite, row)
        for row in counts
    )
    if not num_classes or not is_square:
        return "There is no confusion matrix of the distilled student."
    names = record.classes
    if len(names) != num_classes:
        names = [str(index) for index in range(num_classes)]
    mistakes = _frequent_mistakes(names, counts)
    if num_classes > MOST_CLASSES:
        return f"A confusion matrix of {num_classes} classes is too large to read. {mistakes}"
    caption = f"{mistakes.removesuffix('.')}{seed_note(record)}."
    title = "Confusion matrix of the distilled student"
    data = [_cells(names, counts)]
    return Plot("confusion", title, caption, f"{title}. {caption}", data, _axes(names), 460)


def _axes(names: list[str]) -> dict[str, Any]:
    """Layout with shortened class names."""
    short = [
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names
    ]
    ticks: dict[str, Any] = {"showgrid": False}
    if len(names) <= MOST_NAMES:
        texts = [plotly_text(name) for name in short]
        ticks |= {"tickvals": list(range(len(names))), "ticktext": texts, "zeroline": False}
    angle = 0 if max(len(plotly_text(name)) for name in short) <= 3 else -45
    return {
        "xaxis": {**ticks, "title": {"text": "predicted class"}, "tickangle": angle},
        "yaxis": {**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
    }


def _cells(names: list[str], counts: list[list[float]]) -> dict[str, Any]:
    """Heatmap with correct predictions above zero and mistakes below."""
    gap = 1 if len(names) <= MOST_NAMES else 0
    colors, details, texts = [], [], []
    for true, row in enumerate(counts):
        shares = [value / (sum(row) or 1) for value in row]
        # Roots of the shares keep rare mistakes visible.
        roots = [share**0.5 for share in shares]
        colors.append([root if true == guess else -root for guess, root in enumerate(roots)])
        details.append(
            [
                [plotly_text(names[true]), plotly_text(name), value, share]
                for name, value, share in zip(names, row, shares, strict=True)
            ]
        )
        texts.append([f"{value:g}" if value else "" for value in row])
    return {
        "type": "heatmap",
        "z": colors,
        "customdata": details,
        "text": texts,
        "texttemplate": "%{text}" if len(names) <= MOST_COUNTS else "",
        "hovertemplate": "%{customdata[0]} predicted as %{customdata[1]}: %{customdata[2]} "
        "(%{customdata[3]:.1%})<extra></extra>",
        "zmin": -1,
        "zmax": 1,
        "xgap": gap,
        "ygap": gap,
        "showscale": False,
    }


def _frequent_mistakes(names: list[str], counts: list[list[float]]) -> str:
    """Sentence with the three most frequent pairs of true and predicted class."""
    mistakes = []
    for true, row in enumerate(counts):
        for guess, value in enumerate(row):
            if true != guess and value > 0:
                mistakes.append((value, f"{names[true]} predicted as {names[guess]} ({value:g})"))
    if not mistakes:
        return "All test samples are classified correctly."
    # The sort is stable: equal counts stay in the order of the classes.
    most = sorted(mistakes, key=lambda mistake: -mistake[0])[:3]
    return f"Most frequent mistakes: {', '.join(text for _, text in most)}."
