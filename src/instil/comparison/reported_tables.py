"""HTML tables of results that papers report."""

from __future__ import annotations

from html import escape

from instil.comparison.reported import ReportedBenchmark, ReportedTable
from instil.comparison.tables import cell, sortable_table
from instil.report.quantities import MISSING


def reported_section(benchmark: ReportedBenchmark, pair: str | None) -> str:
    """Return the tables of a benchmark with their sources.

    Args:
        benchmark: reported results.
        pair: show the columns of this pair only. None: all.
    """
    parts = [
        "<p>Numbers of papers and of their authors' code, not measured here. They are not part of "
        "any statistic or plot of this page.</p>"
    ]
    parts += [_table(benchmark, table, pair) for table in benchmark.tables]
    return "".join(parts)


def _table(benchmark: ReportedBenchmark, table: ReportedTable, pair: str | None) -> str:
    columns = [
        index
        for index, column in enumerate(table.columns)
        if pair is None or column.partition("/")[0] == pair
    ]
    if not columns:
        return ""
    source = benchmark.sources[table.source]
    header = ["Method"]
    for index in columns:
        key, _, metric = table.columns[index].partition("/")
        networks = benchmark.pairs[key]
        header.append(f"{networks.teacher} → {networks.student}{f', {metric}' if metric else ''}")
    rows = []
    for row in table.rows:
        cells = [cell(row.name, note=row.method or "")]
        for index in columns:
            value = row.values[index]
            cells.append(cell(MISSING if value is None else f"{value:g}", key=value or ""))
        rows.append(cells)
    unit = ", %" if table.unit == "percent" else ""
    text = (
        f"{escape(source.title)} ({source.year}), {escape(table.table)}. "
        f'<a href="{escape(source.paper)}">Paper</a>, <a href="{escape(source.read)}">source</a>. '
        f"Setting: {escape(source.setting)}"
    )
    return sortable_table(f"{table.metric}{unit}", header, rows) + f"<p>{text}</p>"
