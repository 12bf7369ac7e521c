"""Command that compares runs and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.app import AsJson, app
from instil.cli.output import console, echo, print_json

RunFolders = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", help="Folders of instil run and instil search.", show_default=False
    ),
]


@app.command()
def compare(
    runs: RunFolders,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path(
        "compare.html"
    ),
    reported: Annotated[
        str | None,
        typer.Option(
            metavar="BENCHMARK[/PAIR]",
            show_default=False,
            help="Also show results of papers, such as cifar100 or cifar100/resnet56-resnet20.",
        ),
    ] = None,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Accept runs of different versions of instil.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Compare runs and searches in a table and a page; settings are kept apart."""
    from instil.comparison.compare import compare as compare_folders

    comparison = compare_folders(runs, reported, any_version)
    if json:
        print_json(comparison.to_json())
        return
    from instil.cli import compare_table

    page = comparison.write(out)
    compare_table.show(comparison, console())
    echo(f"Page: {page}")
