"""Position of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainState:
    """Position of a training.

    Attributes:
        steps: number of steps of the whole training.
        step: number of steps done.
        epoch: number of epochs done.
        epoch_step: number of steps done in the current epoch.
        seconds: time spent in steps.
    """

    steps: int
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    seconds: float = 0.0

    @property
    def progress(self) -> float:
        """Share of the steps that are done, in [0, 1]."""
        return self.step / self.steps
