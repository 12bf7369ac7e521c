"""Table and regret curves of ``benchmarks/proof``, and the marker that stands for them."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from formatting import NOT_PERCENT, replace_markers, table

from instil.report.legend import legend
from instil.report.names import display_name
from instil.report.plots import COLORS, OTHER_COLORS, Plot
from instil.report.svg import draw_svg

FOLDER = Path(__file__).parents[1] / "benchmarks" / "proof"
MARKER = "<!-- proof of search -->"
STUDENTS_MARKER = "<!-- proof of search over students -->"
STRATEGIES = {"searches": "halving over steps", "seeds": "halving over seeds, with a prior"}
"""Folders of the searches, with the names of their strategies."""
STRATEGY_COLORS = (COLORS["distilled"], OTHER_COLORS[2])
TARGET = 0.003 + 1e-9
"""Largest regret of a share, such as an accuracy, that counts as equal: 0.3 points, rounded."""
WIDTH = 640
STYLE = (
    "<style>.proof svg{max-width:100%;height:auto;font-size:12px}.proof text{fill:currentColor}"
    ".proof .grid{stroke:currentColor;opacity:.15}.proof .legend{list-style:none;display:flex;"
    "flex-wrap:wrap;gap:0 1rem;margin:0;padding:0}.proof .legend svg{fill:none}</style>"
)
Row = dict[str, Any]


def insert_table(text: str) -> str:
    """Replace the markers by the tables and the regret curves."""
    return replace_markers(text, {MARKER: evidence, STUDENTS_MARKER: students})


def evidence() -> str:
    """Statement of the measured tasks, both tables and the regret curves."""
    tasks = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    everything = {task: _read("exhaustive", task) for task in tasks}
    measured = {task: result for task, result in everything.items() if result}
    lines = [_statement(tasks, measured), ""]
    if not measured:
        return "\n".join(lines)
    header = ["task", "methods", "metric", "best method", "its test score"]
    header += ["regret of the choice on validation data", "regret of random search (5 % to 95 %)"]
    lines += [*table(header, [_cells(*item) for item in measured.items()]), ""]
    header = ["task", "search", "choices of the studies", "mean regret", "worst regret"]
    header += ["within the noise", "at most 0.3 points", "share of the cost"]
    header += ["mean regret with new seeds"]
    rows = [row for item in measured.items() for row in _study_rows(*item)]
    lines += [*table(header, rows), _summary(measured), ""] if rows else []
    figures = [_figure(task, result) for task, result in measured.items()]
    lines += [STYLE, *filter(None, figures), ""]
    return "\n".join(lines)


def students() -> str:
    """Table of the searches over students."""
    paths = sorted((FOLDER / "students").glob("*.json"))
    if not paths:
        return "Not measured yet."
    header = ["task", "students", "share to keep", "smallest (exhaustive)", "its size (kB)"]
    header += ["choices of the studies", "size relative to it", "share of the teacher's quality"]
    header += ["share of the cost"]
    rows = [_student_cells(path.stem, _read("students", path.stem)) for path in paths]
    return "\n".join(table(header, rows))


def _student_cells(task: str, result: Row) -> list[str]:
    searches = result["searches"]
    smallest = result["students"][result["winner"]]["bytes"] / 1000
    winner = f"`{result['winner']}`" + ("" if result["keep"]["is_met"] else " (none keeps it)")
    share = f"{100 * result['keep']['share']:.0f} %"
    cells = [f"`{task}`", str(len(result["students"])), share, winner, f"{smallest:.1f}"]
    sizes = [search["size"] for search in searches]
    shares = [100 * search["share"] for search in searches]
    cost = sum(search["steps"] for search in searches) / len(searches) / result["steps"]
    cells += [_counted([search["winner"] for search in searches])]
    cells += [f"{min(sizes):.2f} to {max(sizes):.2f}", f"{min(shares):.1f} to {max(shares):.1f} %"]
    return [*cells, f"{100 * cost:.1f} %"]


def _counted(names: list[str]) -> str:
    """Names with the number of their occurrences."""
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    parts = [f"`{name}` ({count})" if count > 1 else f"`{name}`" for name, count in counts.items()]
    return ", ".join(parts)


def _statement(tasks: list[str], measured: dict[str, Row]) -> str:
    searched = [task for task in measured if any(_read(part, task) for part in STRATEGIES)]
    parts = [f"Exhaustive search: {_joined(list(measured))}.", f"Searches: {_joined(searched)}."]
    missing = [task for task in tasks if task not in searched]
    if missing:
        parts.append(f"Not measured yet: searches on {_joined(missing)}.")
    return " ".join(parts)


def _joined(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _read(part: str, task: str) -> Any:
    """Result of a part of the proof for one task; None if it was not measured."""
    path = FOLDER / part / f"{task}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _scale(everything: Row) -> int:
    return 1 if everything["headline"] in NOT_PERCENT else 100


def _best(everything: Row, split: str) -> str:
    sign = 1 if everything["higher_is_better"] else -1
    arms = everything["arms"]
    return max(arms, key=lambda name: sign * arms[name][split]["mean"])


def _cells(task: str, everything: Row) -> list[str]:
    """Row of an exhaustive search."""
    scale = _scale(everything)
    arms = everything["arms"]
    best = _best(everything, "test")
    score = arms[best]["test"]
    choice = arms[_best(everything, "validation")]["test"]["mean"]
    unit = " (%)" if scale == 100 else ""
    cells = [f"`{task}`", str(len(arms)), f"{display_name(everything['headline'])}{unit}"]
    cells += [f"`{best}`", f"{scale * score['mean']:.1f} ± {scale * score['std']:.1f}"]
    cells.append(f"{scale * abs(score['mean'] - choice):.2f}")
    return [*cells, _random_cell(_read("random", task), scale)]


def _study_rows(task: str, everything: Row) -> list[list[str]]:
    """Rows of the searches that were measured on a task."""
    rows = []
    for part, name in STRATEGIES.items():
        studies = _read(part, task)
        if studies:
            confirmed = _confirmed_cell(_read("confirmed", task), studies, _scale(everything))
            rows.append([f"`{task}`", name, *_study_cells(studies, everything), confirmed])
    return rows


def _confirmed_cell(confirmed: Row | None, studies: list[Row], scale: int) -> str:
    """Mean regret of the studies with new seeds, and the chosen methods worse than the best."""
    names = [study["winner"] for study in studies]
    if not confirmed or not set(names) <= set(confirmed["gains"]):
        return ""
    gains = {name: confirmed["gains"][name] for name in names}
    mean = sum(-gains[name]["mean"] for name in names) / len(names)
    worse = [name for name, gain in gains.items() if gain["significant"] and gain["mean"] < 0]
    return f"{scale * mean:.2f}" + (f"; {_joined(worse)} worse" if worse else "")


def _summary(measured: dict[str, Row]) -> str:
    """Sentence on the studies of the default search, whose metrics are all shares."""
    studies = [study for task in measured for study in _read("seeds", task) or []]
    within = sum(study["within_noise"] for study in studies)
    close = sum(study["regret"] <= TARGET for study in studies)
    return (
        f"Of {len(studies)} studies with halving over seeds, {within} chose a method within the "
        f"noise of the best one, and {close} one that is at most 0.3 points worse."
    )


def _study_cells(studies: list[Row], everything: Row) -> list[str]:
    """Choices, regret and cost of the searches."""
    scale = _scale(everything)
    regrets = [study["regret"] for study in studies]
    within = sum(study["within_noise"] for study in studies)
    close = f"{sum(regret <= TARGET for regret in regrets)} of {len(studies)}"
    cost = sum(study["steps"] for study in studies) / len(studies) / everything["steps"]
    names = _counted([study["winner"] for study in studies])
    cells = [names, f"{scale * sum(regrets) / len(regrets):.2f}"]
    cells += [f"{scale * max(regrets):.2f}", f"{within} of {len(studies)}"]
    # Points are those of percentages.
    return [*cells, close if scale == 100 else "", f"{100 * cost:.1f} %"]


def _random_cell(simulated: Row | None, scale: int) -> str:
    if not simulated:
        return ""
    mean, low, high = (scale * simulated["regret"][name] for name in ("mean", "low", "high"))
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _figure(task: str, everything: Row) -> str:
    """Regret against the share of the exhaustive cost as SVG; empty without a curve."""
    scale = _scale(everything)
    traces = []
    for (part, strategy), color in zip(STRATEGIES.items(), STRATEGY_COLORS, strict=True):
        traces += _study_traces(_read(part, task) or [], strategy, color, scale)
    simulated = _read("random", task)
    if simulated:
        shares, means, _, highs = zip(*simulated["curve"], strict=True)
        color = COLORS["alone"]
        traces.append(_trace("random search, mean", shares, means, color, scale))
        traces.append(_trace("random search, 95 % quantile", shares, highs, color, scale, "dot"))
    if not traces:
        return ""
    metric = display_name(everything["headline"])
    unit = " (points)" if scale == 100 else ""
    layout = {
        "xaxis": {"title": {"text": "share of the exhaustive cost (%)"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"regret{unit}"}, "rangemode": "tozero"},
    }
    ends = ", ".join(f"{trace['name']} {trace['y'][-1]:.2f}" for trace in traces)
    caption = f"{task}: regret in {metric} of the best method so far."
    plot = Plot(f"proof-{task}", task, caption, f"Regret at the end: {ends}.", traces, layout, 260)
    return (
        f'<figure class="proof" role="img" aria-label="{escape(plot.summary)}">{legend(plot)}'
        f"{draw_svg(plot, WIDTH)}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _study_traces(studies: list[Row], strategy: str, color: str, scale: int) -> list[Row]:
    """Mean and largest regret of the studies, where every study has a finished trial."""
    columns = list(zip(*(study["curve"] for study in studies), strict=True))
    shares, means, worst = [], [], []
    for column in columns:
        values = [value for _, value in column if value is not None]
        if len(values) == len(studies):
            shares.append(column[0][0])
            means.append(sum(values) / len(values))
            worst.append(max(values))
    if not shares:
        return []
    return [
        _trace(f"{strategy}: mean of the studies", shares, means, color, scale),
        _trace(f"{strategy}: worst study", shares, worst, color, scale, "dot"),
    ]


def _trace(name: str, shares: Any, values: Any, color: str, scale: int, dash: str = "") -> Row:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [100 * share for share in shares],
        "y": [scale * value for value in values],
        "line": {"color": color, "dash": dash, "width": 2},
    }
