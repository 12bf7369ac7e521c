"""Output of the command line: text, JSON and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Return a console on stdout."""
    from rich.console import Console

    return Console()


def print_table(table: Table, console: Console) -> None:
    """Print a table with all values, also if it is wider than the terminal.

    Args:
        table: table whose columns do not wrap.
        console: console.
    """
    from rich.measure import Measurement

    # rich cuts values that do not fit; the terminal wraps lines instead.
    table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, soft_wrap=True)


def echo(text: str, err: bool = False) -> None:
    """Print text. Control characters in names of files and messages of servers are escaped."""
    from instil.files.printable import printable

    typer.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    import json

    echo(json.dumps(value, indent=2, default=str))
