"""Page of a search: ranking, curves, methods tried and refused, options of the winner."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic
from instil.report.figures import Figures, page_template
from instil.report.names import display_name
from instil.report.plots import Plot, arm_color, plotly_text
from instil.report.tables import table, term_list

PAGE = "search.html"
Outcome = Mapping[str, Any]


def write_page(outcome: Outcome, best: str, folder: Path) -> Path:
    """Write ``search.html``, which needs no network.

    Args:
        outcome: content of ``search.json``.
        best: recipe of the winner as YAML.
        folder: folder of the search.
    """
    path = folder / PAGE
    with atomic(path) as temporary:
        temporary.write_text(render(outcome, best), encoding="utf-8")
    return path


def render(outcome: Outcome, best: str) -> str:
    """Return the page as HTML.

    Args:
        outcome: content of ``search.json``.
        best: recipe of the winner as YAML.
    """
    figures = Figures()
    sections = {
        "Finalists": _ranking(outcome) + figures.add(_interval_plot(outcome)),
        "Validation score against steps": figures.add(_curve_plot(outcome)),
        "Methods that were tried": _tried(outcome),
        "Methods that were refused": _refused(outcome),
        "Winner": _winner(outcome) + f"<pre tabindex=0><code>{escape(best)}</code></pre>",
    }
    body = "".join(
        f"<section><h2>{escape(title)}</h2>{content}</section>"
        for title, content in sections.items()
    )
    notes = "".join(f"<p>{escape(note)}.</p>" for note in outcome["notes"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(outcome))}</title>\n{_style()}\n</head>\n<body>\n<header>"
        f'<p class="about">Search over the recipe {escape(outcome["name"])}</p>'
        f"<h1>{escape(headline(outcome))}</h1><p>{escape(_effort(outcome))}</p>{notes}</header>\n"
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def _style() -> str:
    """Return the style sheet of the report of a run."""
    template = page_template("page.html").template
    _, _, rest = template.partition("<style>")
    style, _, _ = rest.partition("</style>")
    return f"<style>{style}</style>"


def _title(outcome: Outcome) -> str:
    return f"Search: {outcome['name']}"


def headline(outcome: Outcome) -> str:
    """Return the result of a search in a sentence."""
    winner, *others = outcome["best"]
    metric = display_name(outcome["headline"])
    text = f"{outcome['winner']} has the best mean validation {metric} of the finalists"
    if len(outcome["best"]) == 1:
        return f"{text}, and the test data separate it from all others."
    names = ", ".join(name for name in (winner, *others) if name != outcome["winner"])
    return f"{text}. The test data cannot separate it from {names}."


def _effort(outcome: Outcome) -> str:
    return (
        f"{len(outcome['trials'])} trainings with {outcome['steps']} optimizer steps. All choices "
        f"use validation data; the finalists are trained again with the seeds "
        f"{', '.join(map(str, outcome['final_seeds']))} and evaluated on the test split."
    )


def _ranking(outcome: Outcome) -> str:
    names = [row["name"] for row in outcome["finalists"]]
    references = [name for name in ("pseudo_labels", "alone") if name in names]
    rows = []
    for row in outcome["finalists"]:
        validation, test = row["validation"], row["test"]
        cells = [row["name"], f"{validation['mean']:.4g}"]
        rows.append([*cells, (f"{test['mean']:.4g}", _interval(test["interval"]))])
        for name in references:
            rows[-1].append(_difference(row["differences"].get(name)))
        rows[-1].append("yes" if row["is_best"] else "no")
    header = ["Method", "Validation", "Test", *(f"Gain over {name}" for name in references)]
    caption = (
        f"Mean {display_name(outcome['headline'])} of {len(outcome['final_seeds'])} seeds. "
        "95 % intervals of Student's t; paired differences on the test split with p-values of the "
        "paired t test, corrected by Holm's method."
    )
    return table(caption, [*header, "In the best set"], rows, _dots(names), strong=0)


def _dots(names: list[str]) -> list[str]:
    return [arm_color(name) for name in names]


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def _difference(gain: Mapping[str, Any] | None) -> tuple[str, str]:
    if gain is None:
        return "-", ""
    note = _interval(gain["interval"])
    return f"{gain['mean']:+.4g}", f"{note}, p = {gain['p']:.2g}" if note else ""


def _interval_plot(outcome: Outcome) -> Plot | str:
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


def _curve_plot(outcome: Outcome) -> Plot | str:
    """Best trial of each finalist in the last round."""
    data = []
    ends = []
    for row in outcome["finalists"]:
        trials = [trial for trial in _searched(outcome, row["name"]) if trial["curve"]]
        if not trials:
            continue
        trial = _best(trials, outcome)
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


def _searched(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    """Return the finished trials of an arm in its last round before the finals."""
    own = [
        trial
        for trial in outcome["trials"]
        if trial["arm"] == name and trial["round"] >= 0 and trial["score"] is not None
    ]
    last = max((trial["round"] for trial in own), default=0)
    return [trial for trial in own if trial["round"] == last]


def _best(trials: list[dict[str, Any]], outcome: Outcome) -> dict[str, Any]:
    sign = 1 if outcome["higher_is_better"] else -1
    return max(trials, key=lambda trial: (trial["status"] == "complete", sign * trial["score"]))


def _tried(outcome: Outcome) -> str:
    rows = []
    for arm in outcome["arms"]:
        trials = _searched(outcome, arm["name"])
        if not trials:
            own = [trial for trial in outcome["trials"] if trial["arm"] == arm["name"]]
            reason = own[0]["error"] if own else "not drawn"
            rows.append([arm["name"], arm["kind"], "-", str(len(own)), reason])
            continue
        best = _best(trials, outcome)
        count = sum(trial["arm"] == arm["name"] for trial in outcome["trials"])
        cells = [arm["name"], arm["kind"], str(best["round"] + 1), str(count)]
        rows.append([*cells, f"{best['score']:.4g}"])
    header = ["Method", "Kind", "Last round", "Trainings", "Best validation score"]
    return table("Arms, with the best score of their last round", header, rows)


def _refused(outcome: Outcome) -> str:
    if not outcome["refused"]:
        return "<p>None.</p>"
    return term_list(list(outcome["refused"].items()))


def _winner(outcome: Outcome) -> str:
    row = outcome["finalists"][0]
    if not row["params"]:
        return "<p>Published options and the learning rate of the recipe.</p>"
    return term_list([(path, str(value)) for path, value in row["params"].items()])
