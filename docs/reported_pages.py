"""Page of the results that papers report, generated from ``instil/reported``."""

from __future__ import annotations

from formatting import cell, table

from instil.comparison.reported import (
    ReportedBenchmark,
    ReportedRow,
    ReportedTable,
    benchmark_names,
    load_reported,
)


def reported_page() -> str:
    """Tables of all benchmarks with their sources and coverage."""
    lines = [
        "# Reported results",
        "",
        "Numbers that papers and their authors' code report. They were not measured here, and no",
        "statistic or plot of this project contains them. Each table names its source, the exact",
        "document that was read, and the training setting.",
        "`instil compare RUN --reported BENCHMARK/PAIR` shows them in a column of their own",
        "([guide](compare.md#reported-results)).",
        "",
        "A number is here only if a document with it could be read: a table, a sentence or a",
        "picture in the authors' repository at a fixed commit. Papers for which no such document",
        "was found are missing, among them CAT-KD, FCFD, OFA, CRLD, KD-DETR, MiniLLM, GKD and sCM.",
        "",
        "## Coverage",
        "",
    ]
    header = ("benchmark", "sources", "pairs of networks", "numbers", "recipes")
    benchmarks = {name: load_reported(name) for name in benchmark_names()}
    lines += table(header, [_coverage(name, data) for name, data in benchmarks.items()])
    for name, benchmark in benchmarks.items():
        lines += [f"## {benchmark.title} {{: #{name} }}", ""]
        for part in benchmark.tables:
            lines += _table(benchmark, part)
    return "\n".join(lines)


def _coverage(name: str, benchmark: ReportedBenchmark) -> list[str]:
    num_values = 0
    for part in benchmark.tables:
        for row in part.rows:
            num_values += sum(value is not None for value in row.values)
    recipes = ", ".join(f"`{recipe}`" for recipe in benchmark.recipes)
    counts = [str(len(benchmark.sources)), str(len(benchmark.pairs)), str(num_values)]
    return [f"[`{name}`](#{name})", *counts, recipes or "none"]


def _table(benchmark: ReportedBenchmark, part: ReportedTable) -> list[str]:
    source = benchmark.sources[part.source]
    header = ["method", *(_column(benchmark, column) for column in part.columns)]
    unit = ", %" if part.unit == "percent" else ""
    direction = "" if part.higher_is_better else "; a lower value is better"
    rows = [[_method(row), *map(_value, row.values)] for row in part.rows]
    return [
        f"**{cell(source.title)}** ({source.year}), {cell(part.table)}: {part.metric}{unit}"
        f"{direction}. [Paper]({source.paper}), [source]({source.read}). "
        f"Setting: {cell(source.setting)}.",
        "",
        *table(header, rows),
    ]


def _column(benchmark: ReportedBenchmark, column: str) -> str:
    pair, _, metric = column.partition("/")
    networks = benchmark.pairs[pair]
    suffix = f", {metric}" if metric else ""
    return cell(f"{networks.teacher} → {networks.student}{suffix}")


def _method(row: ReportedRow) -> str:
    return f"{cell(row.name)} (`{row.method}`)" if row.method else cell(row.name)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
