"""Sections of the page of a search over students: costs, frontiers and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.report.figures import Figures
from instil.report.names import display_name
from instil.report.plots import Plot, arm_color, plotly_text
from instil.report.tables import Cell, table
from instil.search.limits import COSTS, describe_cost

Outcome = Mapping[str, Any]
LOGARITHMIC = 8
"""Ratio of the largest and the smallest cost above which the axis is logarithmic."""
UNITS = {
    "latency": (1.0, "latency of one sample, ms"),
    "size": (1e3, "size of the file, kB"),
    "memory": (1e3, "memory of one inference, kB"),
    "parameters": (1.0, "parameters"),
}
"""Value of one unit of each axis, and its title."""


def student_headline(outcome: Outcome) -> str:
    """Return the chosen student in a sentence."""
    winner = find_row(outcome, outcome["winner"])
    keep = outcome["keep"]
    metric = display_name(outcome["headline"])
    quality = f"{100 * keep['share']:.4g} % of the teacher's validation {metric}"
    within = " within the limits" if outcome["limits"] else ""
    if not keep["is_met"]:
        # The file that is within the limits could not be evaluated.
        beyond = f" It is beyond a limit: {winner['violation']}." if winner["violation"] else ""
        return (
            f"No student{within} keeps {quality}. {outcome['winner']} has the best mean "
            f"validation score of those that were trained again.{beyond}"
        )
    size = describe_cost("size", winner["bytes"])
    teacher = outcome["teacher_costs"].get("bytes")
    comparison = "" if teacher is None else f"; the teacher has {describe_cost('size', teacher)}"
    subject = f"{outcome['winner']} is the smallest student{within}"
    return f"{subject} that keeps {quality}: {size}{comparison}."


def find_row(outcome: Outcome, name: str) -> dict[str, Any]:
    """Return the row of a finalist."""
    row: dict[str, Any] = next(row for row in outcome["finalists"] if row["name"] == name)
    return row


def student_section(outcome: Outcome, figures: Figures) -> str:
    """Return the table of the students and the plots of quality against each cost, as HTML."""
    plots = "".join(figures.add(frontier_plot(outcome, name)) for name in outcome["frontiers"])
    return _table(outcome) + plots


def _table(outcome: Outcome) -> str:
    rows: list[list[Cell]] = []
    for row in outcome["finalists"]:
        interval = row["test"]["interval"]
        note = "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
        scores: list[Cell] = [
            f"{row['validation']['mean']:.4g}",
            (f"{row['test']['mean']:.4g}", note),
        ]
        rows.append([row["name"], *scores, *cost_texts(row), row["violation"] or "-"])
    names = [row["name"] for row in outcome["finalists"]]
    strong = names.index(outcome["winner"])
    if outcome["teacher"] is not None:
        names.append("teacher")
        rows.append(_teacher_row(outcome))
    metric = display_name(outcome["headline"])
    runtime = "ONNX Runtime" if outcome["runtime"] == "onnxruntime" else "PyTorch, weights only"
    caption = (
        f"Mean {metric} of {len(outcome['final_seeds'])} seeds with 95 % intervals of Student's t. "
        f"Size, and median latency and memory of one sample on this machine ({runtime})."
    )
    costs = ["Latency", "Size", "Memory", "Parameters"]
    header = ["Student", "Validation", "Test", *costs, "Beyond a limit"]
    dots = [arm_color(name.removesuffix(" int8")) for name in names]
    return table(caption, header, rows, dots, strong=strong)


def _teacher_row(outcome: Outcome) -> list[Cell]:
    teacher = outcome["teacher"]
    validation = teacher["validation"].get(outcome["headline"])
    scores = ["-" if score is None else f"{score:.4g}" for score in (validation, teacher["score"])]
    costs = {"parameters": teacher["parameters"]} | outcome["teacher_costs"]
    return ["teacher", *scores, *cost_texts(costs), "-"]


def cost_texts(row: Mapping[str, Any]) -> list[str]:
    """Return latency, size, memory and parameters as texts; a dash for an unknown one."""
    values = {name: row.get(key) for name, key in COSTS.items()}
    return ["-" if value is None else describe_cost(name, value) for name, value in values.items()]


def frontier_plot(outcome: Outcome, cost: str) -> Plot:
    """Return the plot of test scores against a cost, with the frontier as a line.

    Args:
        outcome: content of ``search.json``.
        cost: name of a frontier, such as ``latency``.
    """
    unit, title = UNITS[cost]
    facts = outcome["frontiers"][cost]
    metric = display_name(outcome["headline"])
    front = [find_row(outcome, name) for name in facts["students"]]
    xs = [row[COSTS[cost]] / unit for row in front]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "frontier on the validation data",
        "x": xs,
        "y": [row["test"]["mean"] for row in front],
        "line": {"color": "#7d8794", "width": 1.5, "dash": "dot"},
    }
    data = [line, *(_point(row, row[COSTS[cost]] / unit) for row in outcome["finalists"])]
    costs = [row[COSTS[cost]] / unit for row in outcome["finalists"]]
    x_axis: dict[str, Any] = {"title": {"text": title}, "rangemode": "tozero"}
    if max(costs) > LOGARITHMIC * min(costs) > 0:
        x_axis = {"title": {"text": f"{title}, logarithmic"}, "type": "log", "tickformat": "~g"}
    texts = [
        f"{row['name']} {describe_cost(cost, row[COSTS[cost]])} at {row['test']['mean']:.4g}"
        for row in front
    ]
    better = "Up" if outcome["higher_is_better"] else "Down"
    return Plot(
        f"frontier-{cost}",
        f"Quality against {cost}",
        f"{better} and to the left is better. Bars are 95 % intervals. {_volume(facts)}",
        f"Frontier: {'; '.join(texts)}.",
        data,
        {"xaxis": x_axis, "yaxis": {"title": {"text": f"test {metric}"}}},
        380,
    )


def _point(row: Mapping[str, Any], x: float) -> dict[str, Any]:
    # Both files of a student have one colour; the symbol shows the file.
    color = arm_color(row["arm"])
    mean = row["test"]["mean"]
    low, high = row["test"]["interval"] or (mean, mean)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(row["name"]),
        "x": [x],
        "y": [mean],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - mean],
            "arrayminus": [mean - low],
            "color": color,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {
            "size": 11,
            "color": color,
            "symbol": "diamond" if row["format"] == "int8" else "circle",
        },
    }


def _volume(facts: Mapping[str, Any]) -> str:
    volume = facts["hypervolume"]
    if volume is None:
        return ""
    ends = volume["interval"]
    interval = "" if ends is None else f" ({ends[0]:.3g} to {ends[1]:.3g})"
    return (
        f"Hypervolume {volume['mean']:.3g}{interval}: mean share of the teacher's quality over all "
        "limits up to the largest cost."
    )
