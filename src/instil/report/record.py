"""A run folder as it was found: what is missing or broken is known, never guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from instil.files.checksums import JSON_KEY, DamagedFileError, read_json_with_checksum

ARMS = ("teacher", "alone", "label_smoothing", "pseudo_labels", "distilled")
SIDE = (
    "loss",
    "ece",
    "mae",
    "agreement",
    "perplexity",
    "bits_per_byte",
)  # metrics that are never the headline
NUMBERS = ("perplexity", "bits_per_byte")  # which are no shares of one


def decimals(value: float) -> int:
    """Decimals that leave four significant digits, at most three."""
    whole_digits = len(str(int(abs(value)))) if abs(value) < 1e15 else 16
    return max(0, min(3, 4 - whole_digits))


@dataclass(frozen=True)
class Record:
    """``result``, ``metrics`` (a row a line), ``environment`` and the recipe's text; ``unread`` says in sentences what could not be read."""

    folder: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    unread: tuple[str, ...] = ()

    def at(self, *keys: str) -> Any:
        """What stands at this path in the result; None where the path ends early."""
        value: Any = self.result
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def number(self, *keys: str) -> float | None:
        """The finite number at this path; None where there is none."""
        return finite(self.at(*keys))

    def interval(self, *keys: str) -> tuple[float, float] | None:
        """The two ends of the interval at this path; None where one of them is missing."""
        ends = self.at(*keys, "interval")
        low, high = (
            [finite(end) for end in ends]
            if isinstance(ends, list) and len(ends) == 2
            else (None, None)
        )
        return None if low is None or high is None else (low, high)

    @cached_property
    def arms(self) -> list[str]:
        """The networks that have a test result: the known ones first, others as they come."""
        found = [
            key
            for key, value in self.result.items()
            if isinstance(value, dict) and any(_summary(part) for part in value.values())
        ]
        found = [key for key in found if key not in ("gains", "cost", "details", "export")]
        return [*(arm for arm in ARMS if arm in found), *(arm for arm in found if arm not in ARMS)]

    @cached_property
    def metric(self) -> str:
        """The headline metric that the result names, or accuracy, or else the first one of the first arm."""
        names = [
            name for arm in self.arms for name, value in self.result[arm].items() if _summary(value)
        ]
        if self.at("headline") in names:
            return str(self.at("headline"))
        return (
            "accuracy"
            if "accuracy" in names
            else next((name for name in names if name not in SIDE), "accuracy")
        )

    @cached_property
    def fraction(self) -> bool:
        """Whether the headline metric lies in [0, 1] everywhere, so that it reads as a percentage."""
        values = [self.number(arm, self.metric, "mean") for arm in self.arms]
        return self.metric not in NUMBERS and all(
            -1 <= value <= 1 for value in values if value is not None
        )

    @cached_property
    def lower_is_better(self) -> bool:
        """Whether a smaller headline metric is better. Gains are positive for improvements."""
        return self.at("higher_is_better") is False

    def improvement(self, value: float, control: float) -> float:
        """How much better one value of the headline metric is than another."""
        return control - value if self.lower_is_better else value - control

    @cached_property
    def classes(self) -> list[str]:
        """Class names; empty where the task has none."""
        classes = self.at("classes")
        return [str(name) for name in classes] if isinstance(classes, list) else []

    @cached_property
    def main_gain(self) -> tuple[str, ...]:
        """Where the gain stands that decides: over the student alone, or, in a run without one, over the best of the simpler methods."""
        gains = self.at("gains")
        known = (
            [("gains", arm) for arm in gains if self.number("gains", arm, "mean") is not None]
            if isinstance(gains, dict)
            else []
        )
        return (
            ("gain",)
            if self.at("data", "surrogate") is None or not known
            else min(known, key=lambda path: self.number(*path, "mean") or 0.0)
        )

    @cached_property
    def pictures(self) -> bytes:
        """The PNG file of images that the shipped student learnt from instead of the data; empty where there is none."""
        path = self.folder / "checkpoint" / f"distilled-{self.at('exported_seed')}.png"
        return path.read_bytes() if path.is_file() else b""

    @cached_property
    def seeds(self) -> list[Any]:
        """The seeds of the run."""
        seeds = self.at("seeds")
        return seeds if isinstance(seeds, list) else []

    def values(self, arm: str, metric: str) -> list[float | None]:
        """The metric of each seed."""
        values = self.at(arm, metric, "values")
        return [finite(value) for value in values] if isinstance(values, list) else []


def read_run(folder: str | Path) -> Record:
    """The run in ``folder``; raises ValueError where it holds no readable result."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected the folder that `instil run` made")
    if not (folder / "result.json").is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{folder} has no result.json, so it is not a run folder, or its run wrote no result yet; it holds {there}"
        )
    try:
        result = json.loads((folder / "result.json").read_text("utf-8"))
        if isinstance(result, dict) and JSON_KEY in result:
            remedy = "Restore it from a copy, or go on with the run (--resume)"
            result = read_json_with_checksum(folder / "result.json", remedy)
    except DamagedFileError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / 'result.json'} cannot be read: {error}") from error
    if not isinstance(result, dict):
        raise ValueError(
            f"{folder / 'result.json'} holds a {type(result).__name__}; expected an object with teacher, alone, distilled, gain and cost"
        )
    unread: list[str] = []
    metrics, environment = (
        _metrics(folder / "metrics.jsonl", unread),
        _environment(folder / "environment.json", unread),
    )
    return Record(
        folder,
        result,
        metrics,
        environment,
        _text(folder / "recipe.yaml", unread) or "",
        tuple(unread),
    )


def finite(value: Any) -> float | None:
    """A finite number, or None for everything else."""
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers there are."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _summary(value: Any) -> bool:
    return isinstance(value, dict) and finite(value.get("mean")) is not None


def _text(path: Path, unread: list[str]) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        unread.append(f"{path.name} is missing or cannot be read.")
        return None


def _environment(path: Path, unread: list[str]) -> dict[str, Any]:
    text = _text(path, unread)
    try:
        found = json.loads(text) if text is not None else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        unread.append(f"{path.name} is not a JSON object.")
    return found if isinstance(found, dict) else {}


def _metrics(path: Path, unread: list[str]) -> list[dict[str, Any]]:
    rows, broken = [], 0
    for line in (_text(path, unread) or "").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.strip():
            broken += 1
    if broken:
        unread.append(
            f"{broken} {'line' if broken == 1 else 'lines'} of {path.name} cannot be read (a run that was stopped may leave half a line)."
        )
    return rows
