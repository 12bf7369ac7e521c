"""Evaluations and steps of one training of a trial."""

from __future__ import annotations

from typing import Any

from instil.search.pruning import StopTrial, is_behind
from instil.search.trials import Trial
from instil.training.train_state import TrainState


class TrialProgress:
    """Evaluations and steps of one training of a trial, which end it early if it is far behind.

    Args:
        trial: the trial.
        metric: headline metric.
        higher_is_better: direction of the metric.

    Attributes:
        curve: steps and validation scores.
        num_steps: optimizer steps done.
    """

    def __init__(self, trial: Trial, metric: str, higher_is_better: bool) -> None:
        self._trial = trial
        self._metric = metric
        self._higher_is_better = higher_is_better
        self._start = 0.0
        self.curve: list[list[float]] = []
        self.num_steps = 0

    def count(self, name: str, seed: int | None, state: TrainState) -> None:
        """Count a step of the student; those of a teacher are not part of the trial."""
        self.num_steps += name == self._trial.method

    def observe(self, record: dict[str, Any]) -> None:
        """Add the evaluation of a record.

        Raises:
            StopTrial: if the trial is far behind its rivals.
        """
        # An epoch without an evaluation has a record, too; so has the teacher.
        if record["arm"] != self._trial.method or "validation" not in record:
            return
        curve = self.curve
        # A round of pruning counts its steps from 0.
        if curve and self._start + record["step"] <= curve[-1][0]:
            self._start = curve[-1][0]
        curve.append([self._start + record["step"], record["validation"][self._metric]])
        if is_behind(curve, self._trial.rivals, self._higher_is_better):
            raise StopTrial
