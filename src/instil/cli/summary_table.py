"""Summary of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from instil.cli.quantities import change_text, kilobytes, metric_text, milliseconds, value_text
from instil.report import evidence
from instil.report.record import NUMBERS, Record

Result = Mapping[str, Any]
"""Content of ``result.json``."""

TITLES = {
    "teacher": "teacher",
    "alone": "student alone",
    "label_smoothing": "label smoothing",
    "pseudo_labels": "pseudo-labels",
    "noise": "white noise",
    "blobs": "smooth noise",
    "distilled": "distilled",
}
"""Titles of the trained models, in the order of the rows."""


def show(result: Result, console: Console) -> None:
    """Print data, table, gain, verdict and warnings of a run.

    The table has the metrics, the gain over the student alone, parameters, size and latency.
    """
    console.print(_data_line(result), highlight=False)
    if counts := label_counts(result):
        console.print(counts, highlight=False)
    console.print(_table(result))
    _print_direction(result, console)
    if "gain" in result:
        console.print(_gain_sentence(result), highlight=False)
        verdict = evidence.verdict(Record(Path(), dict(result)))
        console.print(f"[bold]Verdict:[/] {verdict.sentence}", highlight=False)
    for warning in result["warnings"]:
        console.print(f"[yellow]Warning:[/yellow] {warning}.")


def _data_line(result: Result) -> str:
    """Return name, sizes and labels of the data, and the number of seeds."""
    data = result["data"]
    noun = data.get("noun", "image")
    if data.get("surrogate") is not None:
        training = f"no training {noun} for the student"
    elif data["labelled"] < data["train"]:
        counts = f"{data['labelled']:,} of {data['train']:,}"
        training = f"{counts} training {noun}s labelled for the student"
    else:
        training = f"{data['train']:,} training {noun}s"
    num_seeds = len(result["seeds"])
    seeds = f"{num_seeds} seed{'s' * (num_seeds > 1)}"
    return f"{data['name']}: {training}, {data['test']:,} to test, {seeds}"


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    headline = result["headline"]
    secondary = _secondary_metrics(result)
    for column in (headline, "gain", "", *secondary, "parameters", "size", "latency"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for name, title in TITLES.items():
        if name in result:
            row = result[name]
            table.add_row(
                title,
                metric_text(headline, row[headline]),
                *_gain_cells(result, name),
                *(metric_text(metric, row.get(metric)) for metric in secondary),
                *_cost_cells(result, "teacher" if name == "teacher" else "student"),
            )
    return table


def label_counts(result: Result) -> str:
    """Return a sentence on the number of labels of each network.

    Returns:
        Such as ``Labels: teacher 1,000, student 100.``; empty if all networks see all labels.
    """
    labels = result.get("labels")
    if labels is None:
        return ""
    teachers = [teacher for teacher in labels["teachers"] if teacher["labelled"] is not None]
    complete = all(teacher["labelled"] == teacher["samples"] for teacher in teachers)
    if complete and labels["student"] == result["data"]["train"]:
        return ""
    counts = list(dict.fromkeys(f"{teacher['labelled']:,}" for teacher in teachers))
    teacher_part = f"teacher {' and '.join(counts)}, " if counts else ""
    return f"Labels: {teacher_part}student {labels['student']:,}."


def show_export(result: Result, console: Console) -> None:
    """Print the exported files with size, latency, metrics and difference from PyTorch."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    metrics = (result["headline"], *_secondary_metrics(result))
    for column in ("", "size", "latency", *metrics, "difference"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for row in (*_network_rows(result, metrics), *_file_rows(result, metrics)):
        table.add_row(*row)
    console.print(table)
    _print_direction(result, console)


def _network_rows(result: Result, metrics: tuple[str, ...]) -> Iterator[list[str]]:
    """Return the rows of teacher and student in PyTorch."""
    for title, name, side in (
        ("teacher, PyTorch", "teacher", "teacher"),
        ("student, PyTorch", "distilled", "student"),
    ):
        if name not in result or side not in result["cost"]:
            continue
        index = result["seeds"].index(result["exported_seed"]) if side == "student" else 0
        values = [_seed_value(metric, result[name].get(metric), index) for metric in metrics]
        cost = result["cost"][side]
        yield [title, kilobytes(cost["bytes"]), milliseconds(cost["latency"]), *values, ""]


def _file_rows(result: Result, metrics: tuple[str, ...]) -> Iterator[list[str]]:
    """Return the rows of exported files."""
    for export in result["export"].values():
        latency = milliseconds(export["latency"]) if "latency" in export else ""
        difference = ""
        if "max_difference" in export:
            difference = f"{export['max_difference']:.1e}"
        values = [
            value_text(metric, export[metric]) if metric in export else "" for metric in metrics
        ]
        yield [export["file"], kilobytes(export["bytes"]), latency, *values, difference]


def _seed_value(metric: str, summary: Mapping[str, Any] | None, index: int) -> str:
    return "" if summary is None else value_text(metric, summary["values"][index])


def _secondary_metrics(result: Result) -> list[str]:
    """Return the secondary metrics that at least one trained model has."""
    rows = [result[name] for name in TITLES if name in result]
    return [metric for metric in result.get("secondary", ()) if any(metric in row for row in rows)]


def _print_direction(result: Result, console: Console) -> None:
    """Print the direction of the headline metric if a lower value is better."""
    if not result.get("higher_is_better", True):
        headline = result["headline"]
        text = f"Lower {headline} is better; a positive gain is a reduction of {headline}."
        console.print(text, highlight=False)


def _gain_cells(result: Result, name: str) -> tuple[str, str]:
    """Return the gain over the student alone, and its relation to noise.

    A baseline has the difference of means only. In a data-free run, the better noise baseline
    stands for the student alone.
    """
    headline = result["headline"]
    if name == "distilled" and "alone" not in result and result["gains"]:
        smallest = min(result["gains"].values(), key=lambda gain: gain["mean"])
        return _gain_text(smallest, headline)
    if name in ("teacher", "alone") or "alone" not in result:
        return "", ""
    if name != "distilled":
        sign = 1 if result.get("higher_is_better", True) else -1
        difference = result[name][headline]["mean"] - result["alone"][headline]["mean"]
        return change_text(headline, sign * difference), ""
    return _gain_text(result["gain"], headline)


def _gain_text(gain: Mapping[str, Any], headline: str) -> tuple[str, str]:
    noise = ""
    if gain["std"] is not None:
        noise = "> noise" if gain["significant"] else "in noise"
    return change_text(headline, gain["mean"]), noise


def _cost_cells(result: Result, side: str) -> tuple[str, str, str]:
    cost = result["cost"].get(side)
    if not cost:
        return "", "", ""
    return f"{cost['parameters']:,}", kilobytes(cost["bytes"]), milliseconds(cost["latency"])


def _gain_sentence(result: Result) -> str:
    """Return the gain over the student alone with its interval."""
    gain = result["gain"]
    headline = result["headline"]
    amount = change_text(headline, abs(gain["mean"])).removeprefix("+")
    if result.get("higher_is_better", True):
        verb = "gains" if gain["mean"] >= 0 else "loses"
        change = f"{verb} {amount}{'' if headline in NUMBERS else ' points'}"
    else:
        change = f"{'lowers' if gain['mean'] >= 0 else 'raises'} the {headline} by {amount}"
    control = "the same student alone (same initial weights, same number of steps)"
    claim = f"Distillation {change} against {control}"
    if gain["interval"] is None:
        return f"{claim}; one seed cannot tell that from noise."
    low, high = (change_text(headline, end) for end in gain["interval"])
    verdict = "larger than noise" if gain["significant"] else "within noise"
    interval = f"{100 * gain['level']:.0f} % interval of the gain {low} to {high}"
    return f"{claim}, {interval}: {verdict}."
