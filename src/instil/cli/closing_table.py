"""What a run says at its end, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

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
        if data.get("images") is not None
        else f"{data['labelled']:,} of {data['train']:,} training {noun}s labelled for the student"
        if data["labelled"] < data["train"]
        else f"{data['train']:,} training {noun}s"
    )
    console.print(
        f"{data['name']}: {labelled}, {data['test']:,} to test, {seeds} seed{'s' * (seeds > 1)}",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for column in (result["headline"], "gain", "", "parameters", "size", "latency"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, title in NAMES.items():
        if name in result:
            table.add_row(
                title,
                percent(result[name][result["headline"]]),
                *_gain(result, name),
                *_cost(result, "teacher" if name == "teacher" else "student"),
            )
    console.print(table)
    if "gain" in result:
        console.print(_sentence(result["gain"]), highlight=False)
    for warning in result["warnings"]:
        console.print(f"[yellow]Beware:[/yellow] {warning}.")


def show_export(result: Mapping[str, Any], console: Console) -> None:
    """The exported files with size, latency, accuracy and how far their logits are from PyTorch's."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    headline = result["headline"]
    for column in ("", "size", "latency", headline, "off by"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for title, arm, net in (
        ("teacher, PyTorch", "teacher", "teacher"),
        ("student, PyTorch", "distilled", "student"),
    ):
        if arm in result and net in result["cost"]:
            place = result["seeds"].index(result["shipped_seed"]) if net == "student" else 0
            score = f"{100 * result[arm][headline]['values'][place]:.1f} %"
            table.add_row(
                title,
                kilobytes(result["cost"][net]["bytes"]),
                milliseconds(result["cost"][net]["latency"]),
                score,
                "",
            )
    for one in result["export"].values():
        difference = f"{one['max_difference']:.1e}" if "max_difference" in one else ""
        latency = milliseconds(one["latency"]) if "latency" in one else ""
        table.add_row(
            one["file"],
            kilobytes(one["bytes"]),
            latency,
            f"{100 * one[headline]:.1f} %",
            difference,
        )
    console.print(table)


def percent(metric: Mapping[str, Any]) -> str:
    """A mean with its standard deviation, in percent."""
    return f"{100 * metric['mean']:.1f}" + (
        f" ± {100 * metric['std']:.1f} %" if metric["std"] is not None else " %"
    )


def kilobytes(number: float) -> str:
    """A size with its unit."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def milliseconds(latency: Mapping[str, Any]) -> str:
    """The median time of an answer."""
    return f"{latency['median_ms']:.2f} ms"


def _gain(result: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Percentage points over the student alone; of a baseline only the difference of means. Without data the better noise stands for alone."""
    if name == "distilled" and "alone" not in result and result["gains"]:
        return _points(min(result["gains"].values(), key=lambda gain: gain["mean"]))
    if name in ("teacher", "alone") or "alone" not in result:
        return "", ""
    if name != "distilled":
        return (
            f"{100 * (result[name][result['headline']]['mean'] - result['alone'][result['headline']]['mean']):+.1f}",
            "",
        )
    return _points(result["gain"])


def _points(gain: Mapping[str, Any]) -> tuple[str, str]:
    noise = "" if gain["std"] is None else "> noise" if gain["significant"] else "in noise"
    return f"{100 * gain['mean']:+.1f}", noise


def _cost(result: Mapping[str, Any], net: str) -> tuple[str, str, str]:
    cost = result["cost"].get(net)
    return (
        (f"{cost['parameters']:,}", kilobytes(cost["bytes"]), milliseconds(cost["latency"]))
        if cost
        else ("", "", "")
    )


def _sentence(gain: Mapping[str, Any]) -> str:
    verb = "gains" if gain["mean"] >= 0 else "loses"
    against = "the same student alone (same initial weights, same number of steps)"
    points = f"Distillation {verb} {100 * abs(gain['mean']):.1f} points against {against}"
    if gain["interval"] is None:
        return f"{points}; one seed cannot tell that from noise."
    low, high = (100 * end for end in gain["interval"])
    verdict = "larger than noise" if gain["significant"] else "within noise"
    return f"{points}, {100 * gain['level']:.0f} % interval {low:+.1f} to {high:+.1f}: {verdict}."
