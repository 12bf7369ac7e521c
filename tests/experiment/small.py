"""Small recipe that trains in a few seconds, and runs of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.plan.run import run
from instil.recipe import build
from instil.recipe.overrides import override
from instil.recipe.sections import Recipe

SMALL: dict[str, Any] = {
    "data": {"name": "digits", "num_labeled": 100, "batch_size": 250},
    "teacher": {"model": "cnn", "options": {"width": 2}},
    "student": {"model": "mlp", "options": {"width": 4}},
    "objectives": {"cross_entropy": {}, "kd": {"temperature": 2}},
    "train": {"epochs": 2, "optimizer": {"lr": 1e-2}, "checkpoint_every": 1},
    "seeds": [0, 1],
    "export": False,
}


def recipe(*changes: str, **sections: Any) -> Recipe:
    """Return the small recipe with other sections and ``key=value`` changes."""
    return build(override(SMALL | sections, changes))


def among_texts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change into this folder, with its own cache and ten short texts in ``texts``."""
    monkeypatch.setenv("INSTIL_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    (folder / "texts").mkdir()
    for index in range(10):
        (folder / "texts" / f"{index}.txt").write_text(
            f"{index}: the quick brown fox jumps over the lazy dog. " * 4
        )


def run_of(one: Recipe, out: Path, resume: bool = False) -> dict[str, Any]:
    """Run a recipe and return the content of ``result.json``."""
    run(one, None if resume else out, out if resume else None, Console(quiet=True))
    return result(out)


def result(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "result.json").read_text())
    return content


def lines(out: Path) -> list[dict[str, Any]]:
    """Return the records of ``metrics.jsonl``."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless_lines(out: Path) -> list[dict[str, Any]]:
    """Return the records of ``metrics.jsonl`` without measured times."""
    times = ("seconds", "speed")
    return [{key: line[key] for key in line if key not in times} for line in lines(out)]


def numbers(
    content: dict[str, Any],
    arms: Sequence[str] = ("teacher", "alone", "label_smoothing", "pseudo_labels", "distilled"),
) -> dict[str, Any]:
    """Return the part of a result that two runs of one recipe share bit for bit."""
    return {
        key: content.get(key)
        for key in (
            *arms,
            "gain",
            "gains",
            "details",
            "exported_seed",
            "headline",
            "warnings",
            "status",
        )
    }
