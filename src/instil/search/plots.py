"""Plots of the page of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.report.names import display_name
from instil.report.plots import Plot, arm_color, plotly_text

Outcome = Mapping[str, Any]


def interval_plot(outcome: Outcome) -> Plot | str:
    """Test scores of the finalists with intervals; a sentence for a single seed."""
    rows = [row for row in outcome["finalists"] if row["test"]["interval"]]
    if not rows:
        return "Intervals need two or more seeds (--seeds)."
    data = []
    for row in rows:
        mean, (low, high) = row["test"]["mean"], row["test"]["interval"]
        color = arm_color(row["name"])
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [mean],
                "y": [f"{plotly_text(row['name'])} "],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - mean],
                    "arrayminus": [mean - low],
                    "color": color,
                    "thickness": 2.5,
                    "width": 7,
                },
                "marker": {"size": 13, "color": color, "symbol": "circle"},
                "showlegend": False,
            }
        )
    metric = display_name(outcome["headline"])
    texts = [f"{row['name']} {row['test']['mean']:.4g}" for row in rows]
    layout = {
        "xaxis": {"title": {"text": metric}},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    caption = "Mean and 95 % interval on the test split."
    summary = f"Test {metric}: {', '.join(texts)}."
    return Plot("intervals", "Test scores", caption, summary, data, layout, 90 + 44 * len(rows))


def curve_plot(outcome: Outcome) -> Plot | str:
    """Best trial of each finalist in the last round."""
    data = []
    ends = []
    for row in outcome["finalists"]:
        trials = [trial for trial in last_trials(outcome, row["name"]) if trial["curve"]]
        # The int8 file of a student has no training of its own.
        if not trials:
            continue
        trial = best_trial(trials, outcome)
        steps, scores = zip(*trial["curve"], strict=True)
        ends.append(f"{row['name']} {scores[-1]:.4g}")
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plotly_text(row["name"]),
                "x": list(steps),
                "y": list(scores),
                "line": {"color": arm_color(row["name"]), "width": 2.5},
            }
        )
    if not data:
        return "The trials have no evaluations."
    metric = display_name(outcome["headline"])
    layout = {
        "xaxis": {"title": {"text": "optimizer steps"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"validation {metric}"}},
    }
    caption = "Best trial of each finalist in the last round of the search."
    summary = f"Validation {metric} at the end: {', '.join(ends)}."
    return Plot("curves", f"Validation {metric}", caption, summary, data, layout)


def last_trials(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    """Return the finished trials of an arm in its last round before the finals.

    An exhaustive search has final trainings only.
    """
    own = [
        trial for trial in outcome["trials"] if trial["arm"] == name and trial["score"] is not None
    ]
    own = [trial for trial in own if trial["round"] >= 0] or own
    last = max((trial["round"] for trial in own), default=0)
    return [trial for trial in own if trial["round"] == last]


def best_trial(trials: list[dict[str, Any]], outcome: Outcome) -> dict[str, Any]:
    """Return the complete trial with the best score; a stopped one only without any other.

    Args:
        trials: finished trials of an arm.
        outcome: content of ``search.json``.
    """
    sign = 1 if outcome["higher_is_better"] else -1
    return max(trials, key=lambda trial: (trial["status"] == "complete", sign * trial["score"]))
