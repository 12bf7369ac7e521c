"""Folders that the command line names for output."""

from __future__ import annotations

from pathlib import Path


def check_folder(path: Path) -> None:
    """Check that a path is a folder, or can become one.

    Args:
        path: folder of the option ``--out``; it need not exist.

    Raises:
        NotADirectoryError: if the path, or a part of it, is a file.
    """
    for part in (path, *path.parents):
        if part.is_dir():
            return
        if part.exists() or part.is_symlink():
            raise NotADirectoryError(f"--out: {part} is not a folder. Use another one")
