"""Options that change with training progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """Number that moves linearly with training progress.

    Attributes:
        start: value until progress reaches ``after``.
        end: value from progress ``until`` on.
        until: progress in [0, 1] at which the value reaches ``end``.
        after: progress in [0, 1] at which the value leaves ``start``.

    Example:
        >>> Schedule(4.0, 2.0, until=0.5).at(0.25)
        3.0
    """

    start: float
    end: float
    until: float = 1.0
    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after <= self.until <= 1:
            raise ValueError(
                f"a schedule needs 0 <= after <= until <= 1, not after={self.after}, "
                f"until={self.until}"
            )

    def at(self, progress: float) -> float:
        """Value at ``progress`` in [0, 1]."""
        if progress >= self.until:
            return self.end
        if progress <= self.after:
            return self.start
        elapsed = (progress - self.after) / (self.until - self.after)
        return self.start + (self.end - self.start) * elapsed


def at_progress(value: float | Schedule, batch: Mapping[str, Any]) -> float:
    """Value of an option at the batch's ``progress`` (0 if the batch has none)."""
    if isinstance(value, Schedule):
        return value.at(float(batch.get("progress", 0.0)))
    return value
