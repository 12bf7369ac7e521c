"""What the doctor found, on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from instil.cli.closing_table import kilobytes

if TYPE_CHECKING:
    from instil.recipe import Recipe


def findings_of(recipe: Recipe) -> dict[str, Any]:
    """Findings of the doctor; what the user's own code prints goes to stderr, for it is no JSON."""
    from instil.experiment.doctor import doctor

    with contextlib.redirect_stdout(sys.stderr):
        return doctor(recipe)


def show(findings: Mapping[str, Any], console: Console) -> None:
    """The data; each stage: nets and roles, losses with their share of the gradient, forecast; the whole run; then the problems."""
    if "data" in findings:
        console.print(_data_line(findings["data"]), highlight=False, markup=False)
    for number, stage in enumerate(findings["stages"]):
        if len(findings["stages"]) > 1:
            console.rule(f"stage {number}")
        for side in ("student", "teacher"):
            if stage[side] is not None:
                console.print(
                    f"[bold]{side}[/bold]  {stage[side]['parameters']:,} parameters",
                    highlight=False,
                )
                for role, shape in stage[side]["roles"].items():
                    path = stage[side]["taps"].get(role)
                    console.print(
                        f"  {role}: {_shapes(shape)}" + (f"  from {_path(path)}" if path else ""),
                        highlight=False,
                        markup=False,
                    )
        console.print(_losses(stage["objectives"]))
        for name, entry in stage["objectives"].items():
            for line in entry.get("plan", []):
                console.print(f"  {name.partition('/')[2]}: {line}", highlight=False, markup=False)
        _say_match(stage, console)
        _say_forecast(stage["forecast"], console)
    if "run" in findings:
        console.print(_run_line(findings["run"]), highlight=False, markup=False)
    for note in findings.get("notes", ()):
        console.print(note, highlight=False, markup=False)
    for problem in findings["problems"]:
        console.print(f"[yellow]Problem:[/yellow] {problem}", highlight=False)
    if not findings["problems"]:
        console.print("[green]No problems found.[/green]")


def _losses(objectives: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("learner / loss", "value", "items", "share of gradient", "adapters"):
        table.add_column(
            column, justify="left" if column == "learner / loss" else "right", no_wrap=True
        )
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


def _say_match(stage: Mapping[str, Any], console: Console) -> None:
    match = stage["match"]
    if stage["teacher"] is not None and not stage["teacher_trained"]:
        console.print(
            "The teacher is not trained yet: shares of the gradient are not judged, and what "
            "depends on its outputs will change.",
            highlight=False,
        )
    words = {
        "agreement": "they agree on",
        "teacher_accuracy": "the teacher is right on",
        "student_accuracy": "the untrained student is right on",
    }
    said = [f"{text} {100 * match[key]:.0f} %" for key, text in words.items() if key in match]
    if said:
        console.print(f"On this batch {', '.join(said)}.", highlight=False)


def _say_forecast(forecast: Mapping[str, float], console: Console) -> None:
    step, seconds = 1000 * forecast["seconds_per_step"], forecast["seconds"]
    duration = _duration(seconds)
    memory = f"{kilobytes(forecast['bytes'])}, of which {kilobytes(forecast['activation_bytes'])} activations"
    console.print(
        f"{forecast['steps']:,} steps of {step:.1f} ms: about {duration} for one distilled student; memory {memory}.",
        highlight=False,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _data_line(data: Mapping[str, Any]) -> str:
    """Samples and labels of each split, classes, and the labels that the student sees."""
    counts = []
    for name in ("train", "validation", "test"):
        part = data[name]
        labels = (
            ""
            if part["labelled"] in (None, part["samples"])
            else f" ({part['labelled']:,} labelled)"
        )
        counts.append(f"{name} {part['samples']:,}{labels}")
    seen = f"; the student sees {data['student_labels']:,} labels"
    return f"Data: {data['noun']}s: {', '.join(counts)}; {data['classes']:,} classes{seen}."


def _run_line(run: Mapping[str, Any]) -> str:
    """Number of trainings and an estimate of their time."""
    num_students = run["seeds"] * len(run["arms"])
    teachers = f"{run['teachers']} teacher" + ("" if run["teachers"] == 1 else "s")
    cached = f" ({run['cached']} from the cache)" if run["cached"] else ""
    names = ", ".join(name.replace("_", " ") for name in run["arms"])
    return (
        f"`instil run` means {run['trainings']} trainings: {teachers}{cached} and {num_students} "
        f"students ({run['seeds']} seeds x {names}). About {_duration(run['seconds'])} in all, "
        "without evaluations."
    )


def _shapes(shape: Any) -> str:
    return (
        " ".join(_shapes(part) for part in shape)
        if shape and isinstance(shape[0], list)
        else "x".join(map(str, shape))
    )


def _path(path: str | list[str]) -> str:
    return path if isinstance(path, str) else ", ".join(path)
