"""Page of a search: ranking, curves, methods tried and refused, options of the winner."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic
from instil.report.figures import Figures, page_template
from instil.report.names import display_name
from instil.report.plots import arm_color
from instil.report.quantities import count
from instil.report.tables import table, term_list
from instil.search.plots import best_trial, curve_plot, interval_plot, last_trials
from instil.search.student_page import find_row, student_headline, student_section
from instil.search.teacher_outcome import teacher_rows

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
    has_students = "frontiers" in outcome
    finalists = student_section(outcome, figures) if has_students else _ranking(outcome)
    noun = "Students" if has_students else "Methods"
    sections = {
        "Finalists": finalists + figures.add(interval_plot(outcome)),
        "Validation score against steps": figures.add(curve_plot(outcome)),
        f"{noun} that were tried": _tried(outcome),
        f"{noun} that were refused": _refused(outcome),
        **_teachers(outcome),
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
    if "frontiers" in outcome:
        return student_headline(outcome)
    winner, *others = outcome["best"]
    metric = display_name(outcome["headline"])
    text = f"{outcome['winner']} has the best mean validation {metric} of the finalists"
    better = outcome.get("better_on_test", [])
    if better:
        return (
            f"{text}. On the test data {', '.join(better)} had better scores outside the noise: "
            "the validation data may be too few for this choice."
        )
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
        rows[-1] += ["yes" if row["is_best"] else "no", count(row["parameters"])]
    if outcome["teacher"] is not None:
        names.append("teacher")
        rows.append(_teacher_row(outcome, len(references)))
    header = ["Method", "Validation", "Test", *(f"Gain over {name}" for name in references)]
    metric = display_name(outcome["headline"])
    num_seeds = len(outcome["final_seeds"])
    more = any(len(row["validation"]["values"]) > num_seeds for row in outcome["finalists"])
    further = ", for validation also of the rounds with all steps" if more else ""
    caption = (
        f"Mean {metric} of {num_seeds} seeds{further}. "
        "95 % intervals of Student's t; paired differences on the test split with p-values of the "
        "paired t test, corrected by Holm's method."
    )
    return table(caption, [*header, "In the best set", "Parameters"], rows, _dots(names), strong=0)


def _teacher_row(outcome: Outcome, num_references: int) -> list[str | tuple[str, str]]:
    teacher = outcome["teacher"]
    validation = teacher["validation"].get(outcome["headline"])
    scores = ["-" if score is None else f"{score:.4g}" for score in (validation, teacher["score"])]
    return ["teacher", *scores, *["-"] * (num_references + 1), count(teacher["parameters"])]


def _dots(names: list[str]) -> list[str]:
    return [arm_color(name) for name in names]


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def _difference(gain: Mapping[str, Any] | None) -> tuple[str, str]:
    if gain is None:
        return "-", ""
    note = _interval(gain["interval"])
    return f"{gain['mean']:+.4g}", f"{note}, p = {gain['p']:.2g}" if note else ""


def _tried(outcome: Outcome) -> str:
    rows = []
    for arm in outcome["arms"]:
        trials = last_trials(outcome, arm["name"])
        if not trials:
            own = [trial for trial in outcome["trials"] if trial["arm"] == arm["name"]]
            reason = own[0]["error"] if own else "not drawn"
            rows.append([*_arm_cells(arm), "-", str(len(own)), reason])
            continue
        best = best_trial(trials, outcome)
        count = sum(trial["arm"] == arm["name"] for trial in outcome["trials"])
        last = "final" if best["round"] < 0 else str(best["round"] + 1)
        rows.append([*_arm_cells(arm), last, str(count), f"{best['score']:.4g}"])
    header = ["Method", "Kind", "Weight", "Last round", "Trainings", "Best validation score"]
    caption = (
        "Arms, with the best score of their last round. The weight of an objective is 1; on "
        "features and relations it may balance its gradient with that of the label losses"
    )
    return table(caption, header, rows)


def _arm_cells(arm: Mapping[str, Any]) -> list[str]:
    """Return name, kind and weight of an arm; only objectives have a weight."""
    objectives = arm["changes"].get("objectives", {})
    own = objectives.get(arm["name"].partition("@")[0])
    weight = "-" if own is None or arm["kind"] != "objective" else f"{own.get('weight', 1):g}"
    return [arm["name"], arm["kind"], weight]


def _teachers(outcome: Outcome) -> dict[str, str]:
    """Return the section of a search over teachers."""
    if "teachers" not in outcome:
        return {}
    rows = teacher_rows(outcome)
    caption = "Signals before the trials, and Spearman's correlation with the student's score"
    return {"Teachers": table(caption, list(rows[0]), [list(row.values()) for row in rows])}


def _refused(outcome: Outcome) -> str:
    if not outcome["refused"]:
        return "<p>None.</p>"
    return term_list(list(outcome["refused"].items()))


def _winner(outcome: Outcome) -> str:
    row = find_row(outcome, outcome["winner"])
    if not row["params"]:
        return "<p>Published options and the learning rate of the recipe.</p>"
    return term_list([(path, str(value)) for path, value in row["params"].items()])
