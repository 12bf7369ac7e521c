"""Results that papers report, as data with their sources.

The files are in ``instil/reported``: ``NAME.yaml`` for each benchmark, and ``NAME.PART.yaml`` with
further sources, pairs and tables. A reported number is never averaged, ranked or plotted with
measured ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, model_validator
from typing_extensions import Doc

from instil.cards import suggestion

FOLDER = Path(__file__).parents[1] / "reported"
Text = Annotated[str, Len(1)]


class _Strict(BaseModel):
    """Base class of the sections of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportedSource(_Strict):
    """Document that reports numbers."""

    title: Annotated[Text, Doc("title of the paper")]
    paper: Annotated[Text, Doc("URL of the paper")]
    year: Annotated[int, Doc("year of publication")]
    read: Annotated[Text, Doc("URL of the document from which the numbers were read")]
    setting: Annotated[Text, Doc("training setting as the document states it")]


class NetworkPair(_Strict):
    """Teacher and student of a column."""

    teacher: Annotated[Text, Doc("teacher as the source names it")]
    student: Annotated[Text, Doc("student as the source names it")]


class ReportedRow(_Strict):
    """Row of a table."""

    name: Annotated[Text, Doc("name of the row in the source")]
    method: Annotated[
        str | None, Doc("objective, scheme or baseline of the catalogue. None: not in it")
    ] = None
    values: Annotated[
        tuple[float | None, ...], Doc("one value per column. None: the source has none")
    ]


class ReportedTable(_Strict):
    """Table of a source, or columns of it."""

    source: Annotated[Text, Doc("key of the source")]
    table: Annotated[Text, Doc("table and section of the document")]
    metric: Annotated[Text, Doc("metric, as the source names it")]
    unit: Annotated[Literal["percent", "number"], Doc("unit of the values")] = "percent"
    higher_is_better: Annotated[bool, Doc("direction of the metric")] = True
    columns: Annotated[tuple[str, ...], Doc("keys of pairs, or pair and metric as pair/metric")]
    rows: Annotated[tuple[ReportedRow, ...], Len(1)]

    @model_validator(mode="after")
    def _check_lengths(self) -> ReportedTable:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"{self.table}, {row.name}: wrong length. Expected {len(self.columns)} values, "
                    f"one per column, got {len(row.values)}"
                )
        return self


class ReportedBenchmark(_Strict):
    """Reported results of one benchmark."""

    title: Annotated[Text, Doc("name for readers")]
    task: Annotated[Text, Doc("task of the catalogue")]
    recipes: Annotated[tuple[str, ...], Doc("shipped recipes with the setting of the sources")] = ()
    sources: dict[str, ReportedSource]
    pairs: dict[str, NetworkPair]
    tables: Annotated[tuple[ReportedTable, ...], Len(1)]

    @model_validator(mode="after")
    def _check_keys(self) -> ReportedBenchmark:
        for table in self.tables:
            if table.source not in self.sources:
                raise ValueError(
                    f"{table.table}: unknown source {table.source}. Expected one of "
                    f"{', '.join(self.sources)}"
                )
            for column in table.columns:
                if column.partition("/")[0] not in self.pairs:
                    raise ValueError(
                        f"{table.table}: unknown pair {column}. Expected one of "
                        f"{', '.join(self.pairs)}"
                    )
        return self

    def values(self, method: str, pair: str) -> list[tuple[float, ReportedTable]]:
        """Return the reported values of a method for a pair, with their tables.

        Args:
            method: method of the catalogue.
            pair: key of a pair.
        """
        values = []
        for table in self.tables:
            for row in table.rows:
                for column, value in zip(table.columns, row.values, strict=True):
                    if row.method == method and column == pair and value is not None:
                        values.append((value, table))
        return values


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks with reported results."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if "." not in path.stem)


def load_reported(name: str) -> ReportedBenchmark:
    """Load the reported results of a benchmark.

    Args:
        name: name of the benchmark, such as ``cifar100``.

    Raises:
        ValueError: if there is no such benchmark, or its file has an error.
    """
    if name not in benchmark_names():
        raise ValueError(
            f"--reported: unknown benchmark {name}. Expected one of "
            f"{', '.join(benchmark_names())}.{suggestion(name, benchmark_names(), is_listed=True)}"
        )
    facts = _read(FOLDER / f"{name}.yaml")
    for path in sorted(FOLDER.glob(f"{name}.*.yaml")):
        _add_part(facts, _read(path), path.name)
    return ReportedBenchmark.model_validate(facts)


def _read(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return facts


def _add_part(facts: dict[str, Any], part: dict[str, Any], name: str) -> None:
    """Add the sources, pairs and tables of a part to those of its benchmark."""
    for section in ("sources", "pairs"):
        repeated = sorted(facts[section].keys() & part.get(section, {}).keys())
        if repeated:
            raise ValueError(f"{name}: {section} repeats {', '.join(repeated)} of another file")
        facts[section] |= part.pop(section, {})
    facts["tables"] += part.pop("tables", [])
    if part:
        raise ValueError(
            f"{name}: unknown key {', '.join(part)}. Expected sources, pairs and tables"
        )


def select_reported(text: str) -> tuple[ReportedBenchmark, str | None]:
    """Load the benchmark of ``--reported NAME`` or ``--reported NAME/PAIR``.

    Args:
        text: value of the option.

    Returns:
        The benchmark, and the key of the pair; None without one.

    Raises:
        ValueError: if the benchmark or the pair is unknown.
    """
    name, _, pair = text.partition("/")
    benchmark = load_reported(name)
    if pair and pair not in benchmark.pairs:
        hint = suggestion(pair, list(benchmark.pairs), is_listed=True)
        raise ValueError(
            f"--reported: unknown pair {pair} of {name}. Expected one of "
            f"{', '.join(benchmark.pairs)}.{hint}"
        )
    return benchmark, pair or None
