"""Commands on the catalogue of methods and on the packaged recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instil.cli.app import AsJson, app
from instil.cli.output import console, echo, print_json


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", show_default=False, help="Name of a method: its card."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="objective, scheme, teacher, task, metric, baseline, weighting, balance or data.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """List the methods, or show the card of one; --kind data lists the data sources."""
    from instil.cli import methods_table, sources_table

    of_data = kind == "data" or (kind is None and name and sources_table.is_source(name))
    if of_data:
        entries = sources_table.select_sources(name)
    else:
        entries = methods_table.select(name, kind)
    if json:
        print_json(entries)
    elif of_data:
        sources_table.show_sources(entries, console())
    elif name is None:
        methods_table.show_all(entries, console())
    else:
        for method in entries:
            methods_table.show_one(method, console())


@app.command()
def recipes(json: AsJson = False) -> None:
    """List the packaged recipes; each runs by its name: instil run kd."""
    from instil.cli import recipe_list

    if json:
        print_json(recipe_list.entries())
    else:
        recipe_list.show(console())


@app.command()
def init(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="Packaged recipe to start from.")
    ] = "kd",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="File to write. Default: RECIPE.yaml."
        ),
    ] = None,
) -> None:
    """Copy a packaged recipe into a new file."""
    from instil.cli import recipe_list

    path = recipe_list.copy(recipe, out)
    echo(f"Wrote {path}. Edit it, then check it with: instil doctor {path}")
