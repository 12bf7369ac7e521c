"""Best evaluation of a training, and the end of a training that no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EarlyStopping:
    """Rule that ends a training whose metric no longer improves.

    Attributes:
        patience: number of evaluations in a row without an improvement after which it ends.
        min_delta: an improvement must be larger than this number.

    Raises:
        ValueError: if a value is out of range.
    """

    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(
                f"early_stopping.patience: Expected a number of at least 1, got {self.patience}."
            )
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(
                f"early_stopping.min_delta: Expected a number of at least 0, got {self.min_delta}."
            )


@dataclass(frozen=True)
class Best:
    """Best evaluation so far.

    Attributes:
        epoch: number of epochs done.
        step: number of steps done.
        value: value of the metric.
    """

    epoch: int
    step: int
    value: float


@dataclass
class Selection:
    """Comparison of the evaluations of one training.

    Args:
        higher_is_better: direction of the metric.
        early_stopping: when the training ends; None: after its full length.
    """

    higher_is_better: bool = True
    early_stopping: EarlyStopping | None = None
    best: Best | None = None
    reference: float | None = None  # value that the next one must improve by min_delta
    num_stale: int = 0  # evaluations since the last improvement by more than min_delta

    def update(self, value: float, epoch: int, step: int) -> bool:
        """Compare an evaluation with the earlier ones.

        Args:
            value: value of the metric. NaN is never an improvement.
            epoch: number of epochs done.
            step: number of steps done.

        Returns:
            Whether it is the best one so far. Of equal evaluations the first is the best one.
        """
        min_delta = 0.0 if self.early_stopping is None else self.early_stopping.min_delta
        if self._gain(value, self.reference) > min_delta:
            self.reference = value
            self.num_stale = 0
        else:
            self.num_stale += 1
        best_value = None if self.best is None else self.best.value
        if not self._gain(value, best_value) > 0:
            return False
        self.best = Best(epoch, step, value)
        return True

    @property
    def is_finished(self) -> bool:
        """Whether the training ends early."""
        return self.early_stopping is not None and self.num_stale >= self.early_stopping.patience

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        best = None if self.best is None else asdict(self.best)
        return {"best": best, "reference": self.reference, "num_stale": self.num_stale}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.best = None if state["best"] is None else Best(**state["best"])
        self.reference = state["reference"]
        self.num_stale = state["num_stale"]

    def _gain(self, value: float, earlier: float | None) -> float:
        """Improvement over an earlier value; infinite if there is none."""
        if math.isnan(value):
            return -math.inf
        if earlier is None:
            return math.inf
        # The difference of two infinite values is NaN, which does not count as an improvement.
        return value - earlier if self.higher_is_better else earlier - value
