"""Packaged recipes on the terminal: their list, and a copy of one to edit."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from instil.recipe.packaged import benchmark_recipes, find_packaged, packaged_recipes, summary

if TYPE_CHECKING:
    from rich.console import Console


def entries() -> list[dict[str, str]]:
    """Return name and summary of each packaged recipe."""
    recipes = packaged_recipes() | benchmark_recipes()
    return [{"name": name, "idea": summary(path)} for name, path in recipes.items()]


def show(console: Console) -> None:
    """Print the recipes, grouped by task."""
    from rich.table import Table
    from rich.text import Text

    for task, group in groupby(entries(), key=lambda entry: entry["name"].rpartition("/")[0]):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for entry in group:
            name = entry["name"]
            # Names of benchmarks are not unique without their folder.
            short_name = name if name.startswith("benchmarks/") else name.rpartition("/")[2]
            table.add_row(Text(short_name, style="bold"), Text(entry["idea"]))
        console.print(f"[bold underline]{task or 'first steps'}[/]", highlight=False)
        console.print(table)
        console.print()
    console.print(
        "Run one: instil run NAME. Copy one to edit it: instil init NAME.",
        style="dim",
        highlight=False,
    )


def copy(name: str, out: Path | None) -> Path:
    """Copy a packaged recipe to ``out``, by default ``NAME.yaml`` in the current folder.

    Raises:
        FileExistsError: if the file exists.
        RecipeError: if no packaged recipe has this name.
    """
    source = find_packaged(name)
    target = out or Path(source.name)
    if target.exists():
        raise FileExistsError(
            f"--out: {target} exists already. Expected a new file; choose another"
        )
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return target
