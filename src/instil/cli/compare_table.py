"""Comparison of runs and searches on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instil.comparison.compare import Comparison
from instil.comparison.evidence import paired_evidence
from instil.comparison.labels import (
    difference_text,
    interval_text,
    result_labels,
    score_text,
    setting_titles,
)
from instil.comparison.overall import Overall
from instil.comparison.results import SettingGroup
from instil.report.names import display_name
from instil.report.quantities import count, milliseconds, plain
from instil.search.evidence import COMPARED


def show(comparison: Comparison, console: Console) -> None:
    """Print a table for each setting, and the statistics over settings.

    Args:
        comparison: results by setting.
        console: console.
    """
    titles = setting_titles(comparison.groups)
    for group, title in zip(comparison.groups, titles, strict=True):
        console.print(_table(group, title))
    overall = comparison.overall
    if isinstance(overall, str):
        if len(comparison.groups) > 1:
            console.print(overall, highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(_overall_table(overall))


def _table(group: SettingGroup, title: str) -> Table:
    setting = group.setting
    methods = {row.method for row in group.results}
    references = [name for name in COMPARED if name in methods]
    table = Table(title=escape(title))
    table.add_column("Method", overflow="fold")
    table.add_column("Test", justify="right")
    table.add_column("95 % interval", justify="right")
    for name in references:
        table.add_column(f"Gain over {display_name(name).lower()}", justify="right")
    for name in ("Parameters", "Latency"):
        table.add_column(name, justify="right")
    evidence = paired_evidence(group)
    for row, label, own in zip(group.results, result_labels(group), evidence, strict=True):
        cells = [
            escape(label) + (" *" if own.is_best else ""),
            score_text(setting, row.mean),
            interval_text(setting, row.interval),
        ]
        for name in references:
            gain = own.differences.get(name)
            text = "" if gain is None else difference_text(setting, gain["mean"])
            p = "" if gain is None or gain["p"] is None else f" (p = {gain['p']:.2g})"
            cells.append(text + p)
        cells += [count(row.parameters), milliseconds(row.latency)]
        table.add_row(*(plain(cell) for cell in cells))
    table.caption = "* not separated from the best result of the same student (paired t test, Holm)"
    return table


def _overall_table(overall: Overall) -> Table:
    table = Table(title=f"{len(overall.blocks)} settings together")
    table.add_column("Method")
    table.add_column("Average rank", justify="right")
    for name in overall.improvements:
        title = f"Probability of improvement over {display_name(name).lower()}"
        table.add_column(title, justify="right")
    for method, rank in zip(overall.methods, overall.mean_ranks, strict=True):
        cells = [escape(method), f"{rank:.2f}"]
        for improvements in overall.improvements.values():
            estimate = improvements.get(method)
            cells.append("" if estimate is None else f"{estimate['probability']:.2f}")
        table.add_row(*cells)
    if overall.ranks is not None:
        difference = overall.ranks.critical_difference
        table.caption = f"Critical difference of the ranks (Nemenyi, 5 %): {difference:.2f}"
    return table
