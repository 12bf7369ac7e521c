"""Findings of the doctor on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instil.early_signals.advice import gradient_rows, task_rows
from instil.report.quantities import duration, milliseconds, plain, size

if TYPE_CHECKING:
    from instil.recipe import Recipe

CLASS_KINDS = ("single", "multi", "binary", "boxes")
"""Kinds of labels that are classes."""
MATCH_TEXTS = {
    "agreement": "teacher and student agree on",
    "teacher_accuracy": "the teacher is correct on",
    "student_accuracy": "the untrained student is correct on",
}


def findings_of(recipe: Recipe) -> dict[str, Any]:
    """Return the findings of the doctor. Prints of the user's code go to stderr."""
    from instil.plan.doctor import doctor

    with contextlib.redirect_stdout(sys.stderr):
        return doctor(recipe)


def show(findings: Mapping[str, Any], console: Console) -> None:
    """Print data, stages, forecast and problems.

    Each stage has its networks with their roles, its losses with their share of the gradient, and
    a forecast of time and memory.
    """
    if "data" in findings:
        console.print(_data_line(findings["data"]), highlight=False, markup=False)
    for index, stage in enumerate(findings["stages"]):
        if len(findings["stages"]) > 1:
            console.rule(f"stage {index}")
        _show_stage(stage, console)
    if "run" in findings:
        console.print(_run_line(findings["run"]), highlight=False, markup=False)
    for note in findings.get("notes", ()):
        console.print(note, highlight=False, markup=False)
    for problem in findings["problems"]:
        console.print(f"[yellow]Problem:[/yellow] {escape(problem)}", highlight=False)
    if not findings["problems"]:
        console.print("[green]No problems found.[/green]")


def _show_stage(stage: Mapping[str, Any], console: Console) -> None:
    for side in ("student", "teacher"):
        if stage[side] is not None:
            _show_net(side, stage[side], console)
    if stage["objectives"]:
        console.print(_losses(stage["objectives"]))
    for name, entry in stage["objectives"].items():
        for line in entry.get("plan", []):
            console.print(f"  {name.partition('/')[2]}: {line}", highlight=False, markup=False)
    _show_match(stage, console)
    console.print(_signals(stage["signals"]))
    console.print(_forecast_line(stage["forecast"]), highlight=False)


def _show_net(side: str, net: Mapping[str, Any], console: Console) -> None:
    console.print(f"[bold]{side}[/bold]  {net['parameters']:,} parameters", highlight=False)
    for role, shape in net["roles"].items():
        path = net["taps"].get(role)
        origin = f"  from {_path(path)}" if path else ""
        console.print(f"  {role}: {_shapes(shape)}{origin}", highlight=False, markup=False)


def _losses(objectives: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("learner / loss", justify="left", no_wrap=True)
    for column in ("value", "items", "share of gradient", "adapters"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, entry in objectives.items():
        adapters = f"{entry['adapters']:,}" if entry.get("adapters") else ""
        table.add_row(
            name,
            f"{entry['value']:.4g}",
            f"{entry['count']:g}",
            f"{100 * entry['share']:.1f} %",
            adapters,
        )
    return table


def _signals(signals: Mapping[str, Any]) -> Table:
    """Return the signals before trials, and what their values suggest."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"Signals before training ({signals['task']['num_samples']} validation samples)",
        title_justify="left",
    )
    table.add_column("signal", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("rule of thumb")
    for row in [*task_rows(signals["task"]), *gradient_rows(signals["losses"])]:
        table.add_row(*row)
    return table


def _show_match(stage: Mapping[str, Any], console: Console) -> None:
    """Print agreement and accuracy of teacher and student on the batch."""
    match = stage["match"]
    if stage["teacher"] is not None and not stage["teacher_trained"]:
        console.print(
            "The teacher is not trained yet. Its outputs will change, so the shares of the "
            "gradient are not checked.",
            highlight=False,
        )
    texts = [
        f"{text} {100 * match[key]:.0f} %" for key, text in MATCH_TEXTS.items() if key in match
    ]
    if texts:
        console.print(f"On this batch {', '.join(texts)}.", highlight=False)


def _forecast_line(forecast: Mapping[str, Any]) -> str:
    if "note" in forecast:
        seconds = plain(duration(forecast["seconds"]))
        return f"One fit of about {seconds} for one distilled student. {forecast['note']}."
    step = milliseconds(1000 * forecast["seconds_per_step"])
    memory = f"{size(forecast['bytes'])}, including {size(forecast['activation_bytes'])}"
    return plain(
        f"{forecast['steps']:,} steps of {step}: about {duration(forecast['seconds'])} for one "
        f"distilled student; memory {memory} of activations."
    )


def _data_line(data: Mapping[str, Any]) -> str:
    """Return samples and labels of each split, classes if any, and labels of the student."""
    counts = []
    for name in ("train", "validation", "test"):
        part = data[name]
        if part["samples"] is None:
            counts.append(f"{name} streamed")
            continue
        labels = ""
        if part["labelled"] not in (None, part["samples"]):
            labels = f" ({part['labelled']:,} labelled)"
        counts.append(f"{name} {part['samples']:,}{labels}")
    student = ""
    if data["student_labels"] is not None:
        student = f"; the student sees {data['student_labels']:,} labels"
    # Tokens, numbers and grades have no classes, although a split names its outputs.
    has_classes = data["kind"] in CLASS_KINDS
    classes = f"; {data['classes']:,} classes" if has_classes else ""
    return f"Data: {data['noun']}s: {', '.join(counts)}{classes}{student}."


def _run_line(run: Mapping[str, Any]) -> str:
    """Return the number of trainings and an estimate of their time."""
    num_students = run["seeds"] * len(run["arms"])
    teachers = f"{run['teachers']} teacher" + ("" if run["teachers"] == 1 else "s")
    cached = f" ({run['cached']} from the cache)" if run["cached"] else ""
    names = ", ".join(name.replace("_", " ") for name in run["arms"])
    return (
        f"`instil run` has {run['trainings']} trainings: {teachers}{cached} and {num_students} "
        f"students ({run['seeds']} seeds x {names}). About {plain(duration(run['seconds']))} in "
        "all, without evaluations."
    )


def _shapes(shape: Any) -> str:
    if shape and isinstance(shape[0], list):
        return " ".join(_shapes(part) for part in shape)
    return "x".join(map(str, shape))


def _path(path: str | list[str]) -> str:
    return path if isinstance(path, str) else ", ".join(path)
