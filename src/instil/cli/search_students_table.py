"""Result of a search over students on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from instil.cli.search_table import compact_table, interval
from instil.search.student_page import cost_texts, find_row, student_headline


def show_students(outcome: Mapping[str, Any], console: Console) -> None:
    """Print scores and costs of the finalists, and the choice.

    Args:
        outcome: content of ``search.json``.
        console: console.
    """
    metric = outcome["headline"]
    num_seeds = len(outcome["final_seeds"])
    plural = "" if num_seeds == 1 else "s"
    table = compact_table(f"{metric} of the students, {num_seeds} new seed{plural}")
    # A terminal of 80 columns folds long names, and cuts none.
    table.add_column("Student", overflow="fold")
    for name in ("Validation", "Test", "95 % interval", "Latency", "Size", "Memory", "Parameters"):
        table.add_column(name, justify="right")
    for row in outcome["finalists"]:
        table.add_row(
            row["name"] + " *" * (row["name"] == outcome["winner"]),
            f"{row['validation']['mean']:.4g}",
            f"{row['test']['mean']:.4g}",
            interval(row["test"]["interval"]),
            *cost_texts(row),
        )
    teacher = outcome["teacher"]
    if teacher is not None:
        validation = teacher["validation"].get(metric)
        scores = [validation, teacher["score"]]
        texts = ["-" if score is None else f"{score:.4g}" for score in scores]
        costs = {"parameters": teacher["parameters"]} | outcome["teacher_costs"]
        table.add_section()
        table.add_row("teacher", *texts, "-", *cost_texts(costs))
    console.print(table)
    for line in student_sentences(outcome):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def student_sentences(outcome: Mapping[str, Any]) -> list[str]:
    """Return the choice, the hypervolumes and the notes in sentences."""
    lines = [student_headline(outcome)]
    winner = find_row(outcome, outcome["winner"])
    if winner["format"] == "int8":
        lines.append("Write its int8 file with: instil export RUN, after instil run best.yaml.")
    volumes = []
    for name, facts in outcome["frontiers"].items():
        if facts["hypervolume"] is not None:
            volumes.append(f"{name} {facts['hypervolume']['mean']:.3g}")
    if volumes:
        lines.append(f"Hypervolume of the frontier of quality and {', '.join(volumes)}.")
    lines.append(
        f"{len(outcome['trials'])} trainings with {outcome['steps']} steps; "
        f"{len(outcome['refused'])} students refused (search.json has the reasons)."
    )
    return lines + [f"{note}." for note in outcome["notes"]]
