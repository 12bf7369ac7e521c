"""Exit codes and messages of errors that reach the command line."""

from __future__ import annotations

from typing import Any

BAD_INPUT, FAILED = 2, 1


def exit_code(error: Exception) -> int:
    """Exit code of an error: 2 for wrong input, 1 for a failed run."""
    # Usage errors of typer have no common base class outside of its private modules.
    if hasattr(error, "format_message"):
        return BAD_INPUT
    bad = (
        ValueError,
        ImportError,
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    )
    return BAD_INPUT if isinstance(error, bad) else FAILED


def message_of(error: Exception) -> str:
    """Message for stderr: one line, or one line for each problem of a recipe."""
    if hasattr(error, "format_message"):
        return _usage(error)
    text = str(error).strip()
    lines = text.splitlines()
    if isinstance(error, OSError) and error.strerror:
        return f"Error: {error.strerror}{f': {error.filename}' if error.filename else ''}"
    if not isinstance(error, (ValueError, ImportError, OSError, RuntimeError, ArithmeticError)):
        return (
            f"Error: {type(error).__name__}: {text} (unexpected error; --debug shows the traceback)"
        )
    if len(lines) > 1 and isinstance(error, ValueError):
        return f"Error: {len(lines)} problems\n" + "\n".join(f"  {line}" for line in lines)
    return f"Error: {text or type(error).__name__}"


def _usage(error: Any) -> str:
    """Message of a usage error, with a pointer to the help."""
    text = str(error.format_message())
    context = getattr(error, "ctx", None)
    if not text or context is None:
        return f"Error: {text}" if text else ""
    return f"Error: {text}\nSee: {context.command_path} --help"
