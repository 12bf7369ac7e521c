"""Folder of ``instil run``, and what happens when the system ends the run."""

from __future__ import annotations

import contextlib
import signal
from datetime import datetime
from pathlib import Path


def check_one(out: Path | None, resume: Path | None) -> None:
    """Check that not both a new folder and a stopped run are given.

    Raises:
        ValueError: if both are given.
    """
    if out is not None and resume is not None:
        raise ValueError(
            f"--out: a resumed run continues in its own folder. Expected --resume {resume} only, "
            f"got --out {out}, too. Remove one of the two"
        )


def existing(path: Path) -> Path:
    """Return the path of a run folder.

    Raises:
        FileNotFoundError: if there is no run at this path.
    """
    if (path / "recipe.yaml").is_file():
        return path
    if path.exists():
        raise FileNotFoundError(
            f"RUN: {path} is not a run folder. Expected a folder with recipe.yaml, got one without"
        )
    raise FileNotFoundError(f"RUN: no such folder. Expected a run folder, got {path}")


def new(name: str) -> Path:
    """Return the path of a new folder in ``runs/``."""
    first = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path = first
    count = 1
    while path.exists():
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path


def stop_on_termination() -> None:
    """Treat SIGTERM as Ctrl-C, so that a run that a batch system stops can be resumed.

    Raises:
        KeyboardInterrupt: on SIGTERM.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGTERM, interrupt)
