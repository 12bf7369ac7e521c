"""Wall-clock times at which checkpoints are due."""

from __future__ import annotations

import time
from collections.abc import Callable

from instil.engine.processes import broadcast_object, world_size

MAX_STEPS = 1000
"""Maximum number of steps between two checks of the clock."""


class CheckpointTimer:
    """Decides after each step whether a checkpoint is due, equally on every rank.

    The first rank checks its clock and sends the result. With several ranks it does so rarely while
    there is time, and at every step near the end of the interval.

    Args:
        minutes: longest time without a checkpoint; None: never due.
        clock: returns seconds, never decreasing.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic):
        self.seconds = None if minutes is None else 60 * minutes
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Start a new interval, after a checkpoint."""
        self._start = self._clock()
        self._num_steps = 0
        self._next_check = 1

    def is_due(self) -> bool:
        """Return whether the interval is over. Call it once after each step, on every rank."""
        if self.seconds is None:
            return False
        self._num_steps += 1
        if self._num_steps < self._next_check:
            return False
        is_over, steps = broadcast_object(self._check_clock(self.seconds))
        self._next_check = self._num_steps + steps
        return bool(is_over)

    def _check_clock(self, seconds: float) -> tuple[bool, int]:
        """Return whether the interval is over, and the number of steps until the next check."""
        elapsed = self._clock() - self._start
        if elapsed >= seconds or world_size() == 1:
            return elapsed >= seconds, 1
        # Half of the remaining steps at the mean speed, so that slower steps do not delay the
        # checkpoint.
        remaining_steps = (seconds - elapsed) * self._num_steps / max(elapsed, 1e-6)
        return False, min(max(int(remaining_steps / 2), 1), MAX_STEPS)
