"""Content of a run folder, with typed access to values that may be missing or malformed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from instil.report.names import ARM_NAMES, display_title
from instil.report.plots import arm_color
from instil.report.quantities import NUMBERS

SECONDARY = ("loss", "ece", "mae", "agreement", "perplexity", "bits_per_byte")
"""Metrics that are never the headline metric unless the result names them."""
OTHER_KEYS = ("gains", "cost", "details", "export", "metrics")
"""Keys of the result with the shape of an arm."""


@dataclass(frozen=True)
class Record:
    """Files of a run.

    Args:
        folder: run folder.
        result: content of ``result.json``.
        metrics: rows of ``metrics.jsonl``.
        environment: content of ``environment.json``.
        recipe: text of ``recipe.yaml``.
        unread: a sentence for each file or line that could not be read.
    """

    folder: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    unread: tuple[str, ...] = ()

    @classmethod
    def of_result(cls, result: Mapping[str, Any]) -> Record:
        """Record of the content of ``result.json`` alone, without a folder."""
        return cls(Path(), dict(result))

    def get(self, *keys: str) -> Any:
        """Value at a path in the result; None if the path ends early."""
        value: Any = self.result
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def get_number(self, *keys: str) -> float | None:
        """Finite number at a path in the result; None if there is none."""
        return finite(self.get(*keys))

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """Mapping at a path in the result; empty if there is none."""
        value = self.get(*keys)
        return value if isinstance(value, dict) else {}

    def get_list(self, *keys: str) -> list[Any]:
        """List at a path in the result; empty if there is none."""
        value = self.get(*keys)
        return value if isinstance(value, list) else []

    def get_interval(self, *keys: str) -> tuple[float, float] | None:
        """Ends of the confidence interval at a path; None if one of them is missing."""
        ends = [finite(end) for end in self.get_list(*keys, "interval")]
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            return None
        return ends[0], ends[1]

    def mean(self, arm: str, metric: str) -> float | None:
        """Mean of a metric of an arm over the seeds; None if there is none."""
        return self.get_number(arm, metric, "mean")

    def values(self, arm: str, metric: str) -> list[float | None]:
        """Value of a metric of an arm for each seed."""
        return [finite(value) for value in self.get_list(arm, metric, "values")]

    @property
    def exported_arm(self) -> str:
        """Arm of the exported student."""
        return str(self.get("exported_arm") or "distilled")

    def arm_name(self, arm: str) -> str:
        """Name of an arm as a heading. A run stores the names of its baselines."""
        return str(self.get("arms", arm, "title") or display_title(arm))

    def arm_color(self, arm: str) -> str:
        """Color of an arm in plots and tables. A run stores the colors of its baselines."""
        return str(self.get("arms", arm, "color") or arm_color(arm))

    def arm_noun(self, arm: str) -> str:
        """Name of an arm in the middle of a sentence."""
        return str(self.get("arms", arm, "noun") or display_title(arm).lower())

    def cost_path(self, arm: str) -> tuple[str, str]:
        """Path of the cost of an arm.

        The entry ``student`` is the cost of the exported student. Another arm has an entry of its
        own if its network has a different size.
        """
        has_entry = arm == "teacher" or isinstance(self.get("cost", arm), dict)
        return ("cost", arm if has_entry else "student")

    @cached_property
    def arms(self) -> list[str]:
        """Arms that have a test result, in the order of ``ARM_NAMES``; others follow."""
        arms = []
        for key, value in self.result.items():
            is_arm = isinstance(value, dict) and any(_is_summary(part) for part in value.values())
            if is_arm and key not in OTHER_KEYS:
                arms.append(key)
        return ordered_arms(arms)

    @cached_property
    def metric(self) -> str:
        """Headline metric: the one that the result names, accuracy, or the first one."""
        names: list[str] = []
        for arm in self.arms:
            names += [name for name, value in self.result[arm].items() if _is_summary(value)]
        if self.get("headline") in names:
            return str(self.get("headline"))
        if "accuracy" in names:
            return "accuracy"
        return next((name for name in names if name not in SECONDARY), "accuracy")

    @cached_property
    def is_fraction(self) -> bool:
        """Whether the headline metric lies in [-1, 1] for all arms, and is shown in percent."""
        values = [self.mean(arm, self.metric) for arm in self.arms]
        return not self.is_number(self.metric) and all(
            -1 <= value <= 1 for value in values if value is not None
        )

    def is_number(self, metric: str) -> bool:
        """Whether a metric is shown as a number instead of percent."""
        return metric in NUMBERS or self.get("metrics", metric, "is_fraction") is False

    def is_added(self, metric: str) -> bool:
        """Whether the recipe has added a metric to those of the task."""
        return metric in self.get_dict("metrics")

    @cached_property
    def lower_is_better(self) -> bool:
        """Whether a smaller headline metric is better. Gains are positive for improvements."""
        return self.get("higher_is_better") is False

    def improvement(self, value: float, control: float) -> float:
        """Difference of two values of the headline metric, positive for an improvement."""
        return control - value if self.lower_is_better else value - control

    @cached_property
    def classes(self) -> list[str]:
        """Class names; empty if the task has none."""
        return [str(name) for name in self.get_list("classes")]

    @cached_property
    def is_data_free(self) -> bool:
        """Whether the student was trained without the training data."""
        return self.get("data", "surrogate") is not None

    @cached_property
    def baselines(self) -> list[str]:
        """Baselines of the run, other than the student alone, with a gain over each."""
        gains = self.get_dict("gains")
        return [arm for arm in gains if self.get_number("gains", arm, "mean") is not None]

    @cached_property
    def main_gain(self) -> tuple[str, ...]:
        """Path of the gain that decides the verdict.

        It is the gain over the student alone. A data-free run has none; the smallest gain over its
        baselines, which is the one over the best of them, stands in for it.
        """
        if not self.is_data_free or not self.baselines:
            return ("gain",)
        best = min(self.baselines, key=lambda arm: self.get_number("gains", arm, "mean") or 0.0)
        return ("gains", best)

    @cached_property
    def surrogate_images(self) -> bytes:
        """PNG file of images that replaced the training data; empty if there is none."""
        path = self.folder / "checkpoint" / f"distilled-{self.get('exported_seed')}.png"
        return path.read_bytes() if path.is_file() else b""

    @cached_property
    def seeds(self) -> list[Any]:
        """Seeds of the run."""
        return self.get_list("seeds")


def ordered_arms(arms: Iterable[str]) -> list[str]:
    """Sort arms in the order of ``ARM_NAMES``; others follow in their own order."""
    ranks = {arm: rank for rank, arm in enumerate(ARM_NAMES)}
    return sorted(arms, key=lambda arm: ranks.get(arm, len(ranks)))


def finite(value: Any) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _is_summary(value: Any) -> bool:
    return isinstance(value, dict) and finite(value.get("mean")) is not None
