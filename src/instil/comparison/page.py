"""Comparison page: one static file with tables, plots, statistics and reported results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import chain
from pathlib import Path
from string import Template

from instil.comparison.labels import method_label
from instil.comparison.overall import Overall
from instil.comparison.overall_plots import profile_plot, rank_plot
from instil.comparison.overall_tables import overall_tables
from instil.comparison.plots import cost_plots, curve_plot, score_plot
from instil.comparison.reported_tables import reported_section
from instil.comparison.results import Setting, SettingGroup, TrainedResult
from instil.comparison.tables import Selection, group_table
from instil.files.atomic import atomic
from instil.report.figures import Figures, page_style
from instil.report.names import display_name

PAGE = "compare.html"
PLURALS = {"run": "runs", "search": "searches"}
EXPLANATION = (
    "Intervals are the 95 % intervals of Student's t over seeds. Gains are paired by seed, with "
    "p-values of the paired t test, corrected by Holm's method within each student."
)


def write_page(
    path: Path,
    groups: Sequence[SettingGroup],
    overall: Overall | str,
    selection: Selection | None = None,
) -> Path:
    """Write the page, which needs no network.

    Args:
        path: file to write.
        groups: results by setting.
        overall: statistics over settings, or the sentence that explains their absence.
        selection: reported benchmark and pair.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(render(groups, overall, path.parent, selection), encoding="utf-8")
    return path


def render(
    groups: Sequence[SettingGroup],
    overall: Overall | str,
    folder: Path,
    selection: Selection | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        groups: results by setting.
        overall: statistics over settings, or the sentence that explains their absence.
        folder: folder of the page, for links.
        selection: reported benchmark and pair.
    """
    figures = Figures()
    results = list(chain.from_iterable(group.results for group in groups))
    sections = [
        _setting_section(group, index, folder, figures, selection)
        for index, group in enumerate(groups)
    ]
    links = [
        f'<a href="#setting-{index}">{escape(_title(group.setting))}</a>'
        for index, group in enumerate(groups)
    ]
    sections.append(_overall_section(overall, figures))
    links.append('<a href="#overall">All settings together</a>')
    if selection is not None:
        title = f"Reported: {selection[0].title}"
        content = reported_section(*selection)
        sections.append(f'<section id="reported"><h2>{escape(title)}</h2>{content}</section>')
        links.append('<a href="#reported">Reported in papers</a>')
    template = Template(files("instil.comparison").joinpath(PAGE).read_text("utf-8"))
    return template.substitute(
        title="Comparison",
        style=page_style(),
        inputs=escape(_inputs(results)),
        headline=escape(headline(groups)),
        warnings=_warnings(groups),
        filters=_filters(groups, results),
        links="".join(links),
        sections="".join(sections),
    )


def headline(groups: Sequence[SettingGroup]) -> str:
    """Return the best result of a single setting, or the number of settings, in a sentence."""
    if len(groups) > 1:
        return (
            f"{len(groups)} settings: only results of the same task, data and metric are compared."
        )
    best = groups[0].results[0]
    metric = display_name(groups[0].setting.metric)
    name = method_label(best.method)
    return f"{name} has the best mean test {metric} of {len(groups[0].results)} results."


def _inputs(results: Sequence[TrainedResult]) -> str:
    folders = {row.origin: set[Path]() for row in results}
    for row in results:
        folders[row.origin] |= {row.folder, *row.copies}
    counts = [
        f"{len(paths)} {origin if len(paths) == 1 else PLURALS[origin]}"
        for origin, paths in folders.items()
    ]
    return " and ".join(counts)


def _warnings(groups: Sequence[SettingGroup]) -> str:
    """Warn about settings whose results differ in network, length of training or seeds."""
    items = []
    for group in groups:
        trained = [row for row in group.results if row.kind != "teacher"]
        for name, values in (
            ("networks", {row.student for row in trained}),
            ("lengths of training", {row.training for row in trained}),
            ("sets of seeds", {row.seeds for row in trained}),
        ):
            if len(values) > 1:
                items.append(f"{_title(group.setting)}: the results have {len(values)} {name}.")
    if not items:
        return ""
    listed = "".join(f"<li>{escape(item)}</li>" for item in items)
    return (
        '<div class="warnings" role="note"><h2>Results that differ in more than the method</h2>'
        f"<ul>{listed}</ul></div>"
    )


def _filters(groups: Sequence[SettingGroup], results: Sequence[TrainedResult]) -> str:
    """Return a select element for each axis with two or more values."""
    axes: dict[str, tuple[str, Iterable[str]]] = {
        "task": ("Task", (group.setting.task for group in groups)),
        "role": ("Role", (row.kind for row in results)),
        "source": ("Knowledge", _flat(row.axes.sources for row in results)),
        "scheme": ("Scheme", _flat(row.axes.schemes for row in results)),
        "algorithm": ("Algorithm", _flat(row.axes.algorithms for row in results)),
        "origin": ("From", (row.origin for row in results)),
    }
    parts = []
    for key, (title, values) in axes.items():
        options = sorted(set(values))
        if len(options) < 2:
            continue
        choices = "".join(f"<option>{escape(option)}</option>" for option in options)
        parts.append(
            f'<label>{title}<select name="{key}"><option value="">all</option>{choices}</select>'
            "</label>"
        )
    return "".join(parts)


def _flat(values: Iterable[tuple[str, ...]]) -> list[str]:
    return list(chain.from_iterable(values))


def _title(setting: Setting) -> str:
    return f"{display_name(setting.task)}, {setting.data}, {display_name(setting.metric)}"


def _setting_section(
    group: SettingGroup, index: int, folder: Path, figures: Figures, selection: Selection | None
) -> str:
    setting = group.setting
    direction = "higher" if setting.higher_is_better else "lower"
    facts = f"{setting.details}. " if setting.details else ""
    costs = "".join(figures.add(plot) for plot in cost_plots(group, index))
    return (
        f'<section class="setting" id="setting-{index}" data-task="{escape(setting.task)}">'
        f"<h2>{escape(_title(setting))}</h2><p>{escape(facts)}A {direction} value is better. "
        f"{EXPLANATION}</p>"
        f"{group_table(group, folder, selection)}{figures.add(score_plot(group, index))}"
        f'{figures.add(curve_plot(group, index))}<div class="pair">{costs}</div></section>'
    )


def _overall_section(overall: Overall | str, figures: Figures) -> str:
    content = f'<p class="absent">{escape(overall)}</p>' if isinstance(overall, str) else ""
    if not isinstance(overall, str):
        plots = figures.add(rank_plot(overall)) + figures.add(profile_plot(overall))
        content = overall_tables(overall) + plots
    return f'<section id="overall"><h2>All settings together</h2>{content}</section>'
