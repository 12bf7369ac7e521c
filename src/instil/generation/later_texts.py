"""Texts of later steps, generated in a thread while the student trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from instil.core import Batch, Net, first_tensor
from instil.generation.rollout_options import Rollouts
from instil.generation.rollout_source import RolloutSource
from instil.items.batch import to_device


@dataclass(frozen=True)
class PendingText:
    """Text of one micro-batch of a later step.

    Attributes:
        step: step that learns from the text.
        version: number of optimizer steps of the weights that generate it.
        result: the generated batch.
    """

    step: int
    version: int
    result: Future[Batch]


class LaterTexts:
    """Queue of the texts of later steps.

    Every ``push_every`` steps of an epoch, the source receives the student's weights and the rows
    of all further steps up to ``staleness`` steps ahead. The weights of a text depend on the
    options and its step only, not on the speed of the source. The texts of older weights are
    complete before the source receives new ones.

    Args:
        options: staleness and steps between two pushes.
        source: generates the texts.
        student: the student.
        rows_of: returns the rows of a batch whose prompts get a text; None: its step needs no text.
    """

    def __init__(
        self,
        options: Rollouts,
        source: RolloutSource,
        student: Net,
        rows_of: Callable[[Batch], Batch | None],
    ):
        self.options = options
        self.source = source
        self.student = student
        self.rows_of = rows_of
        self._pending: deque[PendingText] = deque()
        # First step whose texts have not been requested yet.
        self._next_step = 0
        self._ages: list[int] = []
        self._last_version = 0

    @property
    def num_later_steps(self) -> int:
        """Number of later steps whose batches ``begin`` needs."""
        return self.options.staleness

    def check_processes(self, num_processes: int) -> None:
        """Check the number of processes.

        Raises:
            ValueError: for a server and several processes.
        """
        if self.options.server is not None and num_processes > 1:
            raise ValueError(
                "scheme.rollouts.server: a server has the weights of one process. Expected one "
                f"process, got {num_processes}. Leave server out: each process has a copy then"
            )

    def begin(self, epoch_step: int, steps: Sequence[Sequence[Batch]]) -> None:
        """Request the texts of later steps, if the student's weights are due.

        Args:
            epoch_step: index of the current step in its epoch.
            steps: micro-batches of the current step and of up to ``staleness`` later ones.
        """
        step = int(steps[0][0]["step"])
        if epoch_step == 0:
            # Texts of the last epoch are left if its training ended early.
            self.cancel()
        is_missing = step >= self._next_step
        if epoch_step % self.options.steps_between_pushes and not is_missing:
            return
        first = step if is_missing else self._next_step
        if first == step + len(steps):
            # The last texts of the epoch have been requested.
            return
        self.wait()
        self.source.push(self.student, step)
        pool = ThreadPoolExecutor(1, "rollouts")
        for index in range(first - step, len(steps)):
            for batch in steps[index]:
                rows = self.rows_of(batch)
                if rows is not None:
                    result = pool.submit(_generate, self.source, rows, _autocast_of(rows))
                    self._pending.append(PendingText(step + index, step, result))
        # The thread ends with its last text.
        pool.shutdown(wait=False)
        self._next_step = step + len(steps)

    def take(self, batch: Batch) -> Batch | None:
        """Return the text of a micro-batch, in the order of ``begin``.

        Args:
            batch: micro-batch of the current step.

        Returns:
            The generated batch; None if its text was not requested.
        """
        step = int(batch["step"]) if "step" in batch else -1
        if not self._pending or self._pending[0].step != step:
            return None
        pending = self._pending.popleft()
        self._ages.append(step - pending.version)
        self._last_version = pending.version
        return to_device(pending.result.result(), first_tensor(batch).device)

    def wait(self) -> None:
        """Wait until all requested texts are complete."""
        for pending in self._pending:
            pending.result.result()

    def cancel(self) -> None:
        """Forget all texts that no step has taken; a text in progress is completed."""
        for pending in self._pending:
            if not pending.result.cancel():
                pending.result.exception()
        self._pending.clear()
        self._next_step = 0

    def end(self) -> None:
        """Forget the requested texts and close the source at the end of the training."""
        self.cancel()
        self.source.close()

    def metrics(self) -> dict[str, float]:
        """Return version of the last text and mean staleness of all texts since the last call."""
        if not self._ages:
            return {}
        mean_age = sum(self._ages) / len(self._ages)
        self._ages = []
        return {"rollout_version": self._last_version, "staleness": mean_age}

    def state(self) -> dict[str, Any]:
        """Return the requested texts for a checkpoint, once they are complete."""
        texts = [
            {"step": one.step, "version": one.version, "text": one.result.result()}
            for one in self._pending
        ]
        return {"next_step": self._next_step, "texts": texts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the requested texts to those of ``state``."""
        self.cancel()
        self._next_step = state["next_step"]
        for entry in state["texts"]:
            result: Future[Batch] = Future()
            result.set_result(entry["text"])
            self._pending.append(PendingText(entry["step"], entry["version"], result))


def _autocast_of(batch: Batch) -> torch.autocast:
    """Context with the precision of this thread, which other threads do not inherit."""
    kind = first_tensor(batch).device.type
    is_enabled = torch.is_autocast_enabled(kind)
    return torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=is_enabled)


def _generate(source: RolloutSource, batch: Batch, autocast: torch.autocast) -> Batch:
    with autocast:
        return source.generate(batch)
