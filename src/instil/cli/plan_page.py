"""Plan of a recipe on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from instil.report.quantities import duration, plain, size

if TYPE_CHECKING:
    from instil.recipe import Recipe

MAX_INPUTS = 1
"""Inputs of a job that are named; more are counted."""


def plan_of(recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """Return the jobs of a recipe. Prints of the user's code go to stderr."""
    from instil.plan.overview import overview

    with contextlib.redirect_stdout(sys.stderr):
        return overview(recipe, folder)


def show(plan: Mapping[str, Any], console: Console) -> None:
    """Print one row per job, and the time that is left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("job", "reads", "state", "time", "memory"):
        is_number = title in ("time", "memory")
        table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
    for job in plan["jobs"]:
        table.add_row(job["name"], _inputs(job["inputs"]), *_state(job))
    console.print(table)
    left = [job for job in plan["jobs"] if "seconds" in job]
    if not left:
        console.print("No training is left.")
        return
    trainings = f"{len(left)} training{'s' * (len(left) != 1)}"
    console.print(
        f"{trainings} left, about {plain(duration(plan['seconds']))} one after another. "
        "Evaluations are not counted.",
        highlight=False,
    )
    for note in dict.fromkeys(job["note"] for job in left if "note" in job):
        console.print(f"{note}.", highlight=False, markup=False)


def _inputs(names: list[str]) -> str:
    if len(names) > MAX_INPUTS:
        return f"{len(names)} jobs"
    return ", ".join(names)


def _state(job: Mapping[str, Any]) -> tuple[str, str, str]:
    """State, time and memory of a job."""
    if job["done"] or job["cached"]:
        return "cached" if job["cached"] else "done", "", ""
    seconds = plain(duration(job["seconds"])) if "seconds" in job else ""
    memory = plain(size(job["bytes"])) if "bytes" in job else ""
    return "to do", seconds, memory
