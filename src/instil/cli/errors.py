"""Exit codes and messages of errors that reach the command line."""

from __future__ import annotations

from typing import Any

BAD_INPUT, FAILED = 2, 1


def exit_code(error: Exception) -> int:
    """2 where the user can put it right in what was typed or named, 1 where a run failed."""
    if hasattr(error, "format_message"):  # a usage error of the command line's own
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
            f"Error: {type(error).__name__}: {text} (this should not happen; --debug shows where)"
        )
    if len(lines) > 1 and isinstance(error, ValueError):
        return f"Error: {len(lines)} problems\n" + "\n".join(f"  {line}" for line in lines)
    return f"Error: {text or type(error).__name__}"


def _usage(error: Any) -> str:
    """A usage error with the closest command or option."""
    text = str(error.format_message())
    context = getattr(error, "ctx", None)
    if not text or context is None:
        return f"Error: {text}" if text else ""
    return f"Error: {text}\nSee: {context.command_path} --help"
