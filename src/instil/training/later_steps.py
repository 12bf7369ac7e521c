"""Batches of later steps, for schemes that prepare them while the current step trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from instil.capabilities import PreparesSteps
from instil.core import Batch, Scheme
from instil.engine import world_size

Precision = AbstractContextManager[Any]


def windows(steps: Iterator[list[Batch]], num_later: int) -> Iterator[list[list[Batch]]]:
    """Yield each step with the steps after it.

    Args:
        steps: micro-batches of each step.
        num_later: number of later steps; with 0, no step is read before it is needed.

    Yields:
        The micro-batches of a step and of up to ``num_later`` later steps.

    Example:
        >>> steps = iter([[{"x": 0}], [{"x": 1}], [{"x": 2}]])
        >>> [len(window) for window in windows(steps, 1)]
        [2, 2, 1]
    """
    window: deque[list[Batch]] = deque()
    for step in steps:
        window.append(step)
        if len(window) > num_later:
            yield list(window)
            window.popleft()
    while window:
        yield list(window)
        window.popleft()


class LaterSteps:
    """Preparation of later steps by a scheme; nothing happens if the scheme prepares none.

    Args:
        scheme: the scheme.
    """

    def __init__(self, scheme: Scheme):
        self._preparation = scheme.preparation() if isinstance(scheme, PreparesSteps) else None
        if self._preparation is not None:
            self._preparation.check_processes(world_size())

    def announced(
        self, steps: Iterator[list[Batch]], epoch_step: int, precision: Callable[[], Precision]
    ) -> Iterator[list[Batch]]:
        """Yield each step after the scheme has received the steps that follow.

        Args:
            steps: micro-batches of each step.
            epoch_step: index of the first of them in its epoch.
            precision: returns the context of forward passes.
        """
        if self._preparation is None:
            yield from steps
            return
        all_windows = windows(steps, self._preparation.num_later_steps)
        for index, window in enumerate(all_windows, start=epoch_step):
            with precision():
                self._preparation.begin(index, window)
            yield window[0]

    def end(self) -> None:
        """Forget the prepared steps."""
        if self._preparation is not None:
            self._preparation.end()

    def metrics(self) -> dict[str, float]:
        """Values for the record of a training, since the last call."""
        return {} if self._preparation is None else self._preparation.metrics()

    def state(self) -> dict[str, Any]:
        """Prepared steps, for a checkpoint of this process."""
        return {} if self._preparation is None else self._preparation.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the prepared steps to those of ``state``; an empty one is ignored."""
        if self._preparation is not None and state:
            self._preparation.restore(state)
