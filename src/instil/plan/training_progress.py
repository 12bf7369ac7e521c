"""Trainings of a run: their number, and their progress on the display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instil.plan.plan import Plan
from instil.progress import RunProgress
from instil.training.fit import TrainState


@dataclass(frozen=True)
class Trainings:
    """Number of trainings of a run.

    Args:
        teachers: teachers that are trained in the run.
        cached: teachers that an earlier run has trained and that are read from the cache.
        seeds: number of seeds.
        arms: students that are trained with every seed, by name.
    """

    teachers: int
    cached: int
    seeds: int
    arms: tuple[str, ...]

    @property
    def students(self) -> int:
        """Number of trainings of a student."""
        return self.seeds * len(self.arms)

    @property
    def total(self) -> int:
        """Number of all trainings."""
        return self.teachers + self.students


def trainings(plan: Plan) -> Trainings:
    """Count the trainings of a run; a teacher that several stages share counts once."""
    num_cached = sum(plan.is_done(job, None) for job in plan.teachers)
    recipe = plan.experiment.recipe
    arms = (*recipe.baselines, "distilled")
    return Trainings(len(plan.teachers) - num_cached, num_cached, len(recipe.seeds), arms)


@dataclass
class TrainingProgress:
    """Callback of a ``Runner`` that moves a display from training to training.

    Args:
        progress: display of the whole run.
    """

    progress: RunProgress
    _current: tuple[str, int | None] | None = field(default=None, init=False)

    def __call__(self, name: str, seed: int | None, state: TrainState) -> None:
        """Show one more step of the training ``name`` with ``seed`` (None for a teacher)."""
        if (name, seed) != self._current:
            self._current = name, seed
            title = name.replace("_", " ")
            self.progress.start(title if seed is None else f"{title}, seed {seed}")
        self.progress.update(state.step, state.steps)

    def observe(self, record: Mapping[str, Any]) -> None:
        """Show the losses of an epoch, without the learner in their names."""
        self.progress.reporting(None)(dict(record))
