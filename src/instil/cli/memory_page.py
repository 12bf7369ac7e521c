"""Forecast of the memory of several processes on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from instil.report.quantities import plain, size
from instil.search.limits import parse_amount

if TYPE_CHECKING:
    from instil.recipe import Recipe

ROWS = {
    "student": "weights of student and losses",
    "teacher": "weights of teachers",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "saved activations",
    "buffers": "buffers of losses and passes",
    "communication": "gathered weights and gradients",
    "update": "buffers of the update",
    "total": "largest total at a time",
}
"""Fields of a layout, and their text."""


def forecast_of(recipe: Recipe, ranks: int, memory: str | None) -> dict[str, Any]:
    """Return the forecast of a recipe. Prints of the user's code go to stderr.

    Args:
        recipe: the recipe.
        ranks: number of processes.
        memory: memory of a device, such as ``80GB``; None: no limit.

    Raises:
        ValueError: for a text that is not an amount of memory.
    """
    try:
        amount = None if memory is None else parse_amount(memory)
    except ValueError as error:
        raise ValueError(f"--memory: not an amount of memory. {error}") from error
    from instil.plan.memory.memory_forecast import forecast_memory

    with contextlib.redirect_stdout(sys.stderr):
        return forecast_memory(recipe, ranks, amount)


def show(forecast: Mapping[str, Any], console: Console) -> None:
    """Print the memory of each layout, the proposed one, and problems."""
    parameters = forecast["parameters"]
    shape = "x".join(map(str, forecast["micro_batch"]))
    console.print(
        f"Student {parameters['student']:,} and teacher {parameters['teacher']:,} parameters; "
        f"micro-batches of {shape}.",
        highlight=False,
    )
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"Memory of each of {forecast['ranks']} processes",
        title_justify="left",
    )
    table.add_column("")
    for layout in forecast["layouts"]:
        table.add_column(layout["name"].replace(", ", "\n"), justify="right")
    for key, text in ROWS.items():
        table.add_row(text, *[plain(size(layout[key])) for layout in forecast["layouts"]])
    if forecast["memory"] is not None:
        fits = ["yes" if layout["fits"] else "no" for layout in forecast["layouts"]]
        table.add_row(f"fits into {plain(size(forecast['memory']))}", *fits)
    console.print(table)
    for note in forecast["notes"]:
        console.print(note, highlight=False, markup=False)
    if forecast["proposal"]:
        console.print(
            f"Proposed for {forecast['ranks']} processes of torchrun: instil run RECIPE "
            f"{' '.join(forecast['proposal'])}",
            highlight=False,
            soft_wrap=True,
        )
    for problem in forecast["problems"]:
        console.print(f"[yellow]Problem:[/yellow] {escape(problem)}", highlight=False)
