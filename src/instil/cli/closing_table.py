"""What a run says at its end, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from instil.report import evidence
from instil.report.record import NUMBERS, Record, decimals

NAMES = {
    "teacher": "teacher",
    "alone": "student alone",
    "label_smoothing": "label smoothing",
    "pseudo_labels": "pseudo-labels",
    "noise": "white noise",
    "blobs": "smooth noise",
    "distilled": "distilled",
}


def show(result: Mapping[str, Any], console: Console) -> None:
    """The arms with accuracy, gain over the student alone, parameters, size and latency; then what was gained, and what to beware of."""
    data = result["data"]
    seeds = len(result["seeds"])
    noun = data.get("noun", "image")
    labelled = (
        f"no training {noun} for the student"
        if data.get("surrogate") is not None
        else f"{data['labelled']:,} of {data['train']:,} training {noun}s labelled for the student"
        if data["labelled"] < data["train"]
        else f"{data['train']:,} training {noun}s"
    )
    console.print(
        f"{data['name']}: {labelled}, {data['test']:,} to test, {seeds} seed{'s' * (seeds > 1)}",
        highlight=False,
    )
    if counts := label_counts(result):
        console.print(counts, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    headline, secondary = result["headline"], _secondary(result)
    for column in (headline, "gain", "", *secondary, "parameters", "size", "latency"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for name, title in NAMES.items():
        if name in result:
            table.add_row(
                title,
                metric_text(headline, result[name][headline]),
                *_gain(result, name),
                *(metric_text(other, result[name].get(other)) for other in secondary),
                *_cost(result, "teacher" if name == "teacher" else "student"),
            )
    console.print(table)
    _print_direction(result, console)
    if "gain" in result:
        console.print(_sentence(result), highlight=False)
        verdict = evidence.verdict(Record(Path(), dict(result)))
        console.print(f"[bold]Verdict:[/] {verdict.sentence}", highlight=False)
    for warning in result["warnings"]:
        console.print(f"[yellow]Beware:[/yellow] {warning}.")


def label_counts(result: Mapping[str, Any]) -> str:
    """Sentence on who learned from how many labels; empty where all nets know all labels.

    Args:
        result: content of ``result.json``.

    Returns:
        Such as ``Labels: teacher 1,000, student 100.``
    """
    labels = result.get("labels")
    if labels is None:
        return ""
    teachers = [one for one in labels["teachers"] if one["labelled"] is not None]
    complete = all(one["labelled"] == one["samples"] for one in teachers)
    if complete and labels["student"] == result["data"]["train"]:
        return ""
    counts = list(dict.fromkeys(f"{one['labelled']:,}" for one in teachers))
    teacher = f"teacher {' and '.join(counts)}, " if counts else ""
    return f"Labels: {teacher}student {labels['student']:,}."


def show_export(result: Mapping[str, Any], console: Console) -> None:
    """The exported files with size, latency, accuracy and how far their logits are from PyTorch's."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = (result["headline"], *_secondary(result))
    for column in ("", "size", "latency", *shown, "off by"):
        title = column.replace("_", " ")
        table.add_column(title, justify="right" if column else "left", no_wrap=True)
    for title, arm, net in (
        ("teacher, PyTorch", "teacher", "teacher"),
        ("student, PyTorch", "distilled", "student"),
    ):
        if arm in result and net in result["cost"]:
            index = result["seeds"].index(result["shipped_seed"]) if net == "student" else 0
            scores = [_score(name, result[arm].get(name), index) for name in shown]
            table.add_row(
                title,
                kilobytes(result["cost"][net]["bytes"]),
                milliseconds(result["cost"][net]["latency"]),
                *scores,
                "",
            )
    for one in result["export"].values():
        difference = f"{one['max_difference']:.1e}" if "max_difference" in one else ""
        latency = milliseconds(one["latency"]) if "latency" in one else ""
        table.add_row(
            one["file"],
            kilobytes(one["bytes"]),
            latency,
            *(amount(name, one[name]) if name in one else "" for name in shown),
            difference,
        )
    console.print(table)
    _print_direction(result, console)


def metric_text(name: str, summary: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation of a metric; in percent, unless the metric is no fraction."""
    if summary is None:
        return ""
    unit = "" if name in NUMBERS else " %"
    mean, std = (_digits(name, summary[key]) for key in ("mean", "std"))
    return f"{mean} ± {std}{unit}" if std else f"{mean}{unit}"


def amount(name: str, value: float) -> str:
    """One value of a metric with its unit."""
    return _digits(name, value) + ("" if name in NUMBERS else " %")


def _digits(name: str, value: float | None, sign: str = "") -> str:
    """The digits without a unit: percent with one decimal, or four significant digits."""
    if value is None:
        return ""
    if name not in NUMBERS:
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign},.{decimals(value)}f}"


def _score(name: str, summary: Mapping[str, Any] | None, index: int) -> str:
    return "" if summary is None else amount(name, summary["values"][index])


def _secondary(result: Mapping[str, Any]) -> list[str]:
    """The secondary metrics that at least one arm has."""
    arms = [result[name] for name in NAMES if name in result]
    return [name for name in result.get("secondary", ()) if any(name in arm for arm in arms)]


def _print_direction(result: Mapping[str, Any], console: Console) -> None:
    """Say so where a lower value of the headline metric is better."""
    if not result.get("higher_is_better", True):
        headline = result["headline"]
        text = f"Lower {headline} is better; a positive gain is a reduction of {headline}."
        console.print(text, highlight=False)


def kilobytes(number: float) -> str:
    """A size with its unit."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def milliseconds(latency: Mapping[str, Any]) -> str:
    """The median time of an answer."""
    return f"{latency['median_ms']:.2f} ms"


def _gain(result: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Percentage points over the student alone; of a baseline only the difference of means. Without data the better noise stands for alone."""
    if name == "distilled" and "alone" not in result and result["gains"]:
        smallest = min(result["gains"].values(), key=lambda gain: gain["mean"])
        return _points(smallest, result["headline"])
    if name in ("teacher", "alone") or "alone" not in result:
        return "", ""
    headline = result["headline"]
    if name != "distilled":
        sign = 1 if result.get("higher_is_better", True) else -1
        difference = result[name][headline]["mean"] - result["alone"][headline]["mean"]
        return _digits(headline, sign * difference, "+"), ""
    return _points(result["gain"], headline)


def _points(gain: Mapping[str, Any], headline: str) -> tuple[str, str]:
    noise = "" if gain["std"] is None else "> noise" if gain["significant"] else "in noise"
    return _digits(headline, gain["mean"], "+"), noise


def _cost(result: Mapping[str, Any], net: str) -> tuple[str, str, str]:
    cost = result["cost"].get(net)
    return (
        (f"{cost['parameters']:,}", kilobytes(cost["bytes"]), milliseconds(cost["latency"]))
        if cost
        else ("", "", "")
    )


def _sentence(result: Mapping[str, Any]) -> str:
    gain, headline = result["gain"], result["headline"]
    size = _digits(headline, abs(gain["mean"]))
    if result.get("higher_is_better", True):
        verb = "gains" if gain["mean"] >= 0 else "loses"
        change = f"{verb} {size}{'' if headline in NUMBERS else ' points'}"
    else:
        change = f"{'lowers' if gain['mean'] >= 0 else 'raises'} the {headline} by {size}"
    control = "the same student alone (same initial weights, same number of steps)"
    claim = f"Distillation {change} against {control}"
    if gain["interval"] is None:
        return f"{claim}; one seed cannot tell that from noise."
    low, high = (_digits(headline, end, "+") for end in gain["interval"])
    verdict = "larger than noise" if gain["significant"] else "within noise"
    interval = f"{100 * gain['level']:.0f} % interval of the gain {low} to {high}"
    return f"{claim}, {interval}: {verdict}."
