"""Application of the command line, and its global options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from instil.cli.output import echo

if TYPE_CHECKING:
    from instil.recipe import Recipe

HELP = (
    "Knowledge distillation: from a teacher, a student and data to a small student, with evidence."
)

app = typer.Typer(
    name="instil",
    help=HELP,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in a third of the time
    context_settings={"help_option_names": ["-h", "--help"]},
)

Arguments = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it on Python 3.10
    typer.Argument(
        metavar="RECIPE KEY=VALUE",
        show_default=False,
        help="YAML file or packaged recipe (default: digits; list: instil recipes), then changes "
        "such as train.epochs=5.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        echo(f"instil {version('instil')}")
        raise typer.Exit


@app.callback(help=HELP)
def global_options(
    context: typer.Context,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; allowed in any position."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Print the help if no command is given."""
    if context.invoked_subcommand is None:
        echo(context.get_help())


def load_recipe(arguments: list[str] | None, default: str = "digits") -> Recipe:
    """Load the recipe that the arguments of a command name, with their changes.

    Raises:
        ValueError: for several recipes.
    """
    changes: list[str] = []
    names: list[str] = []
    for argument in arguments or []:
        is_change = "=" in argument and not Path(argument).exists()
        (changes if is_change else names).append(argument)
    if len(names) > 1:
        raise ValueError(
            f"RECIPE: several recipes. Expected one, got {' and '.join(names)}. Write a change as "
            "key=value, without spaces"
        )
    from instil.recipe import load

    return load(names[0] if names else default, changes)
