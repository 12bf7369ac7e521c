"""Command line: run, search, compress, compare, plan, record, generate, methods, ..."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import typer

import instil.cli.commands as commands
import instil.cli.compare_command as compare_command
import instil.cli.generate_command as generate_command
import instil.cli.method_commands as method_commands
import instil.cli.search_command as search_command
import instil.cli.search_compress as search_compress
from instil.cli.app import app
from instil.cli.output import echo
from instil.cli.warning_lines import short_warnings

__all__ = [
    "app",
    "commands",
    "compare_command",
    "generate_command",
    "main",
    "method_commands",
    "search_command",
    "search_compress",
]


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit.

    An error is a message on stderr and the exit code 2 (bad input) or 1 (failed run). ``--debug``
    shows its traceback, and the places of warnings.

    Args:
        arguments: words of the command line. Default: those of the process.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    from instil.cli.errors import exit_code, message_of

    try:
        with nullcontext() if debug else short_warnings():
            code = app(
                args=[word for word in words if word != "--debug"],
                prog_name="instil",
                standalone_mode=False,
            )
    except (KeyboardInterrupt, typer.Abort):
        code = commands.INTERRUPTED
    except Exception as error:
        code = exit_code(error)
        if debug:
            raise
        if message := message_of(error):
            echo(message, err=True)
    # typer returns this code, too, if a command did not handle Ctrl-C.
    if code == commands.INTERRUPTED:
        echo("\nStopped.", err=True)
    sys.exit(code if isinstance(code, int) else 0)
