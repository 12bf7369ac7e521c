"""Options that scale a student: width, share of pruned parts, rank, neurons and layers."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from typing import Any

from instil.recipe.sections import ModelConfig
from instil.search.student_arms import SCALED_NAMES, network_name, network_sizes, width_multiple

WIDTH = ("options", "width")
PRUNED_SHARE = ("changes", "prune", "share")
COMPRESSIONS = (
    PRUNED_SHARE,
    ("changes", "low_rank", "rank"),
    ("changes", "width", "neurons"),
    ("changes", "depth", "layers"),
)
"""Paths of the options of compressed teachers in the section of a student."""

LARGEST_RATIO = 1.1
"""Ratio of two scales between which no further student is trained."""


@dataclass(frozen=True)
class ScaledStudent:
    """Section of a student, and the option that scales it.

    Attributes:
        section: plain data of the section ``student`` of a recipe.
        path: path of the option in the section.
        unit: multiple that the scale must be.
    """

    section: dict[str, Any]
    path: tuple[str, ...]
    unit: float = 1

    @property
    def scale(self) -> float:
        """Value of the option, or the share that pruning leaves; larger is a larger student."""
        value = float(_parent(self.section, self.path)[self.path[-1]])
        return round(1 - value, 6) if self.path == PRUNED_SHARE else value

    @property
    def family(self) -> str:
        """Text that equals that of other scales of the same student."""
        section = copy.deepcopy(self.section)
        del _parent(section, self.path)[self.path[-1]]
        return json.dumps([self.path, section], sort_keys=True)

    @property
    def name(self) -> str:
        """Name of the arm."""
        if self.path == WIDTH:
            return network_name(self.section["model"], self.section["options"])
        scale = round(100 * (1 - self.scale)) if self.path == PRUNED_SHARE else round(self.scale)
        return SCALED_NAMES[self.path[1]].format(scale)

    def with_scale(self, scale: float) -> ScaledStudent:
        """Return the student with another scale."""
        value = round(1 - scale, 6) if self.path == PRUNED_SHARE else round(scale)
        section = copy.deepcopy(self.section)
        _parent(section, self.path)[self.path[-1]] = value
        return ScaledStudent(section, self.path, self.unit)


def scaled_student(section: dict[str, Any]) -> ScaledStudent | None:
    """Return a student with the option that scales it; None if no single option does.

    Args:
        section: plain data of the section ``student`` of a recipe.
    """
    sizes = network_sizes(ModelConfig.model_validate(section))
    if "width" in sizes:
        complete = section | {"options": section["options"] | sizes}
        return ScaledStudent(complete, WIDTH, width_multiple(sizes))
    paths = [path for path in COMPRESSIONS if _has(section, path)]
    if section["model"] != "teacher" or len(paths) != 1:
        return None
    return ScaledStudent(section, paths[0], 0.01 if paths[0] == PRUNED_SHARE else 1)


def scale_between(upper: float, lower: float | None, unit: float) -> float | None:
    """Compute the geometric mean of two scales, or half a scale without a smaller one.

    Args:
        upper: the larger scale.
        lower: the smaller scale; None if there is none.
        unit: multiple that the result must be.

    Returns:
        The scale; None if none lies between, or if the two are within ``LARGEST_RATIO``.

    Example:
        >>> scale_between(8, 2, 1), scale_between(8, None, 1), scale_between(8, 7, 1)
        (4, 4, None)
    """
    if lower is not None and upper <= LARGEST_RATIO * lower:
        return None
    mean = upper / 2 if lower is None else math.sqrt(upper * lower)
    scale = round(round(mean / unit) * unit, 6)
    return scale if (lower or 0) < scale < upper else None


def _parent(section: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        section = section[key]
    return section


def _has(section: dict[str, Any], path: tuple[str, ...]) -> bool:
    inner: Any = section
    for key in path:
        if not isinstance(inner, dict) or key not in inner:
            return False
        inner = inner[key]
    # Another change would scale the student, too.
    return len(section[path[0]]) == 1
