"""Summary of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instil.cli.output import print_table
from instil.cli.result_lines import result_lines
from instil.report.evidence import verdict
from instil.report.labels import label_counts
from instil.report.quantities import amount, milliseconds, plain, points, size
from instil.report.record import Record

Result = Mapping[str, Any]
"""Content of ``result.json``."""


def show(result: Result, console: Console) -> None:
    """Print data, table, gain, verdict and warnings of a run.

    The table has the metrics, the gain over the student alone, parameters, size and latency.
    """
    for line in filter(None, (_data_line(result), label_line(result))):
        console.print(line, highlight=False, markup=False)
    print_table(_table(result), console)
    _print_direction(result, console)
    if "gain" in result:
        console.print(_gain_sentence(result), highlight=False, markup=False)
        sentence = escape(verdict(Record.of_result(result)).sentence)
        console.print("[bold]Verdict:[/]", sentence, highlight=False)
    for line in result_lines(result):
        console.print(line, highlight=False, markup=False)
    for warning in result["warnings"]:
        console.print(f"[yellow]Warning:[/yellow] {escape(warning)}.", highlight=False)


def _data_line(result: Result) -> str:
    """Return name, sizes and labels of the data, and the number of seeds."""
    data = result["data"]
    noun = data.get("noun", "image")
    if data.get("surrogate") is not None:
        training = f"no training {noun} for the student"
    elif data["train"] is None:
        training = f"streamed training {noun}s"
    elif data["labelled"] < data["train"]:
        counts = f"{data['labelled']:,} of {data['train']:,}"
        training = f"{counts} training {noun}s labelled for the student"
    else:
        training = f"{data['train']:,} training {noun}s"
    num_seeds = len(result["seeds"])
    seeds = f"{num_seeds} seed{'s' * (num_seeds > 1)}"
    return f"{data['name']}: {training}, {data['test']:,} to test, {seeds}"


def label_line(result: Result) -> str:
    """Return the number of labels of each network.

    Returns:
        Such as ``Labels: teacher 1,000, student 100.``; empty if all networks see all labels.
    """
    counts = label_counts(Record.of_result(result))
    if counts is None:
        return ""
    teachers = " and ".join(f"{value:,.0f}" for value in counts.teachers)
    teacher_part = f"teacher {teachers}, " if teachers else ""
    return f"Labels: {teacher_part}student {counts.student:,.0f}."


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    headline = result["headline"]
    secondary = _secondary_metrics(result)
    for column in (headline, "gain", "", *secondary, "parameters", "size", "latency"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    record = Record.of_result(result)
    for arm in record.arms:
        row = result[arm]
        table.add_row(
            _row_title(record, arm),
            _metric_text(record, headline, row.get(headline)),
            *_gain_cells(result, arm),
            *(_metric_text(record, metric, row.get(metric)) for metric in secondary),
            *_cost_cells(record, arm),
        )
    return table


def _row_title(record: Record, arm: str) -> str:
    # The longer name of the distilled student would make the table wider than 80 columns.
    return arm if arm == "distilled" else record.arm_name(arm).lower()


def show_export(result: Result, console: Console) -> None:
    """Print the exported files with size, latency, metrics and difference from PyTorch."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    metrics = (result["headline"], *_secondary_metrics(result))
    for column in ("", "size", "latency", *metrics, "difference"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for row in (*_network_rows(result, metrics), *_file_rows(result, metrics)):
        table.add_row(*row)
    print_table(table, console)
    _print_direction(result, console)


def _network_rows(result: Result, metrics: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the rows of teacher and student in PyTorch."""
    for title, arm, side in (
        ("teacher, PyTorch", "teacher", "teacher"),
        ("student, PyTorch", Record.of_result(result).exported_arm, "student"),
    ):
        if arm not in result or side not in result["cost"]:
            continue
        # Results of earlier versions have another key.
        seed = result.get("exported_seed", result.get("shipped_seed"))
        index = result["seeds"].index(seed) if side == "student" else 0
        row, record = result[arm], Record.of_result(result)
        values = [_seed_value(record, metric, row.get(metric), index) for metric in metrics]
        cost = result["cost"][side]
        yield [title, _size(cost["bytes"]), _latency(cost["latency"]), *values, ""]


def _file_rows(result: Result, metrics: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the rows of exported files."""
    record = Record.of_result(result)
    for export in result["export"].values():
        latency = _latency(export["latency"]) if "latency" in export else ""
        difference = f"{export['max_difference']:.1e}" if "max_difference" in export else ""
        values = [
            _value_text(record, metric, export[metric]) if metric in export else ""
            for metric in metrics
        ]
        yield [export["file"], _size(export["bytes"]), latency, *values, difference]


def _seed_value(record: Record, metric: str, summary: Mapping[str, Any] | None, index: int) -> str:
    return "" if summary is None else _value_text(record, metric, summary["values"][index])


def _secondary_metrics(result: Result) -> list[str]:
    """Return the secondary metrics that at least one trained model has."""
    rows = [result[arm] for arm in Record.of_result(result).arms]
    return [metric for metric in result.get("secondary", ()) if any(metric in row for row in rows)]


def _print_direction(result: Result, console: Console) -> None:
    """Print the direction of the headline metric if a lower value is better."""
    if not result.get("higher_is_better", True):
        headline = result["headline"]
        text = f"Lower {headline} is better; a positive gain is a reduction of {headline}."
        console.print(text, highlight=False)


def _gain_cells(result: Result, arm: str) -> tuple[str, str]:
    """Return the gain over the student alone, and its relation to noise.

    A baseline has the difference of means only. In a data-free run, the better noise baseline
    stands for the student alone.
    """
    headline = result["headline"]
    if arm == "distilled" and "alone" not in result and result["gains"]:
        smallest = min(result["gains"].values(), key=lambda gain: gain["mean"])
        return _gain_text(Record.of_result(result), smallest, headline)
    if arm in ("teacher", "alone") or "alone" not in result:
        return "", ""
    if arm != "distilled":
        record = Record.of_result(result)
        means = (result[name][headline]["mean"] for name in (arm, "alone"))
        return _change_text(record, headline, record.improvement(*means)), ""
    return _gain_text(Record.of_result(result), result["gain"], headline)


def _gain_text(record: Record, gain: Mapping[str, Any], headline: str) -> tuple[str, str]:
    noise = ""
    if gain["std"] is not None:
        noise = "> noise" if gain["significant"] else "in noise"
    return _change_text(record, headline, gain["mean"]), noise


def _cost_cells(record: Record, arm: str) -> tuple[str, str, str]:
    """Return parameters, size and latency of an arm."""
    cost = record.get_dict(*record.cost_path(arm))
    if not cost:
        return "", "", ""
    # An estimator has no parameters, only a size.
    parameters = f"{cost['parameters']:,}" if cost["parameters"] else ""
    return parameters, _size(cost["bytes"]), _latency(cost["latency"])


def _gain_sentence(result: Result) -> str:
    """Return the gain over the student alone with its interval."""
    gain = result["gain"]
    headline = result["headline"]
    record = Record.of_result(result)
    difference = _change_text(record, headline, abs(gain["mean"])).removeprefix("+")
    if result.get("higher_is_better", True):
        verb = "gains" if gain["mean"] >= 0 else "loses"
        change = f"{verb} {difference}{'' if record.is_number(headline) else ' points'}"
    else:
        change = f"{'lowers' if gain['mean'] >= 0 else 'raises'} the {headline} by {difference}"
    control = "the same student alone (same initial weights, same number of steps)"
    if record.get("training", "fitted"):
        control = "the same student alone (same estimator, same options)"
    claim = f"Distillation {change} against {control}"
    if gain["interval"] is None:
        return f"{claim}; one seed cannot distinguish that from noise."
    low, high = (_change_text(record, headline, end) for end in gain["interval"])
    relation = "larger than noise" if gain["significant"] else "within noise"
    interval = f"{100 * gain['level']:.0f} % interval of the gain {low} to {high}"
    return f"{claim}, {interval}: {relation}."


def _metric_text(record: Record, metric: str, summary: Mapping[str, Any] | None) -> str:
    """Return mean and standard deviation of a metric."""
    if summary is None:
        return ""
    if summary["std"] is None:
        return _value_text(record, metric, summary["mean"])
    is_fraction = not record.is_number(metric)
    mean, std = (amount(summary[key], is_fraction, unit=False) for key in ("mean", "std"))
    return plain(f"{mean} ± {std}{' %' if is_fraction else ''}")


def _value_text(record: Record, metric: str, value: float) -> str:
    return plain(amount(value, not record.is_number(metric)))


def _change_text(record: Record, metric: str, value: float) -> str:
    return plain(points(value, not record.is_number(metric)))


def _size(num_bytes: float) -> str:
    return plain(size(num_bytes))


def _latency(latency: Mapping[str, Any]) -> str:
    return plain(milliseconds(latency["median_ms"]))
