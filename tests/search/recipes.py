"""A recipe that trains in a second, and searches over it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from instil.recipe import build
from instil.recipe.sections import Recipe
from instil.search.search import Settings, resume, start

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits", "num_labeled": 100, "batch_size": 64},
    "teacher": {"model": "networks:mlp", "options": {"width": 32}},
    "student": {"model": "networks:mlp", "options": {"width": 16}},
    "objectives": {"cross_entropy": {}, "kd": {}},
    "train": {"steps": 9, "optimizer": {"type": "adamw", "lr": 1e-2}},
    "teacher_train": {"steps": 60},
    "device": "cpu",
}
CANDIDATES = ("dkd", "dist", "fitnet")


def recipe(**changes: Any) -> Recipe:
    """The tiny recipe with other sections."""
    return build({**RECIPE, **changes})


def search(folder: Path, num_jobs: int = 1, **settings: Any) -> dict[str, Any]:
    """Search in a folder, with one final seed and few candidates by default."""
    settings = {"candidates": CANDIDATES, "num_seeds": 2, **settings}
    return start(recipe(), Settings(**settings), folder, silent(), num_jobs)


def continue_search(folder: Path, num_jobs: int = 1) -> dict[str, Any]:
    """Continue a search."""
    return resume(folder, silent(), num_jobs)


def silent() -> Console:
    """Console that prints nothing."""
    return Console(file=io.StringIO())


def without_times(value: Any) -> Any:
    """Content of a file of a search without measured times and the checksum over them."""
    if isinstance(value, dict):
        return {
            key: without_times(entry)
            for key, entry in value.items()
            if key not in ("seconds", "step_seconds", "sha256")
        }
    return [without_times(entry) for entry in value] if isinstance(value, list) else value
