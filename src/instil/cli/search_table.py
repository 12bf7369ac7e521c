"""Result of a search on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from instil.search.teacher_outcome import teacher_rows

COMPARED = ("pseudo_labels", "alone")


def show(outcome: Mapping[str, Any], console: Console) -> None:
    """Print the ranking of the finalists, and notes on it.

    Args:
        outcome: content of ``search.json``.
        console: console.
    """
    metric = outcome["headline"]
    references = [
        name for name in COMPARED if any(name in row["differences"] for row in outcome["finalists"])
    ]
    num_seeds = len(outcome["final_seeds"])
    plural = "" if num_seeds == 1 else "s"
    table = compact_table(f"{metric} of the finalists, {num_seeds} new seed{plural}")
    table.add_column("Method", overflow="fold")
    table.add_column("Validation", justify="right")
    table.add_column("Test", justify="right")
    table.add_column("95 % interval", justify="right")
    for name in references:
        table.add_column(f"Gain over {name}", overflow="fold", justify="right")
    table.add_column("Parameters", justify="right")
    for row in outcome["finalists"]:
        cells = [
            row["name"] + " *" * row["is_best"],
            f"{row['validation']['mean']:.4g}",
            f"{row['test']['mean']:.4g}",
            interval(row["test"]["interval"]),
        ]
        cells += [gain(row["differences"].get(name)) for name in references]
        table.add_row(*cells, parameters(row["parameters"]))
    if outcome["teacher"] is not None:
        table.add_section()
        table.add_row(*_teacher_cells(outcome, len(references)))
    console.print(table)
    if "teachers" in outcome:
        _show_teachers(outcome, console)
    for line in sentences(outcome):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def compact_table(title: str) -> Table:
    """Return a table without lines between its columns, which fits into 80 characters."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=0)


def _show_teachers(outcome: Mapping[str, Any], console: Console) -> None:
    """Print the cheap signals of each teacher, in the order of the search, and its student."""
    rows = teacher_rows(outcome)
    table = compact_table("Signals of the teachers before the trials")
    for name in rows[0]:
        table.add_column(name, overflow="fold", justify="left" if name == "Teacher" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _teacher_cells(outcome: Mapping[str, Any], num_references: int) -> list[str]:
    teacher = outcome["teacher"]
    validation = teacher["validation"].get(outcome["headline"])
    scores = ["-" if score is None else f"{score:.4g}" for score in (validation, teacher["score"])]
    # The teacher is one network: it has neither an interval nor paired differences.
    return ["teacher", *scores, *["-"] * (num_references + 1), parameters(teacher["parameters"])]


def parameters(num_parameters: int | None) -> str:
    """Return a number of parameters as text; a dash if it is unknown."""
    return "-" if num_parameters is None else f"{num_parameters:,}"


def sentences(outcome: Mapping[str, Any]) -> list[str]:
    """Return the result of a search in sentences."""
    best = outcome["best"]
    lines = [f"Winner on the validation data: {outcome['winner']}."]
    if teachers := outcome.get("teachers", {}).get("best"):
        first, *others = teachers
        rivals = f" The test data cannot separate it from {', '.join(others)}." if others else ""
        lines.append(f"Best teacher on the validation data: {first}.{rivals}")
    noun = "teachers" if "teachers" in outcome else "methods"
    better = outcome.get("better_on_test", [])
    equal = [name for name in best if name not in better]
    if len(equal) > 1:
        lines.append(
            f"* The test data cannot separate these methods: {', '.join(equal)} (paired t test, "
            "Holm)."
        )
    if better:
        lines.append(
            f"On the test data {', '.join(better)} had better scores than the winner, outside the "
            "noise. The validation data may be too few for this choice."
        )
    lines.append(
        f"{len(outcome['trials'])} trainings with {outcome['steps']} steps; "
        f"{len(outcome['refused'])} {noun} refused (search.json has the reasons)."
    )
    return lines + [f"{note}." for note in outcome["notes"]]


def interval(ends: list[float] | None) -> str:
    """Return an interval as text; a dash for a single seed."""
    return "-" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


def gain(facts: Mapping[str, Any] | None) -> str:
    """Return a paired difference with its p-value; a dash without one."""
    if facts is None:
        return "-"
    p = "" if facts["p"] is None else f" (p = {facts['p']:.2g})"
    return f"{facts['mean']:+.4g}{p}"
