"""Epochs, steps, records and checkpoints of one training."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from instil.core import Batch, Net, Scheme
from instil.engine import Engine, checkpoints
from instil.engine.checkpoint_timer import CheckpointTimer
from instil.training.batches import Batches
from instil.training.clock import clock
from instil.training.exported_weights import ExportedWeights
from instil.training.later_steps import LaterSteps
from instil.training.monitor import LossMonitor
from instil.training.settings import Training
from instil.training.speed import Speed
from instil.training.step import train_step
from instil.training.train_state import TrainState

Record = dict[str, Any]
"""Epoch, step, mean losses, learning rate, seconds, speed and validation metrics of a record."""


@dataclass
class Run:
    """State and functions of one call of ``fit``."""

    scheme: Scheme
    engine: Engine
    training: Training
    state: TrainState
    monitor: LossMonitor
    evaluate: Callable[[Net], Mapping[str, float]] | None
    report: Callable[[Record], None] | None
    on_step: Callable[[TrainState], None] | None
    checkpoint: Path | None
    records: list[Record] = field(default_factory=list)
    epoch_random: dict[str, Any] | None = None  # random state at the start of the current epoch

    timer: CheckpointTimer = field(init=False)
    exported: ExportedWeights = field(init=False)
    later: LaterSteps = field(init=False)
    speed: Speed = field(init=False)

    def __post_init__(self) -> None:
        self.timer = CheckpointTimer(self.training.checkpoint_minutes)
        has_evaluation = self.evaluate is not None
        self.exported = ExportedWeights(self.scheme, self.training, has_evaluation)
        self.later = LaterSteps(self.scheme)
        self.speed = Speed(self.engine, self.scheme)

    def epochs(self, batches: Batches, length: int | None) -> None:
        """Train to the end.

        Args:
            batches: steps of an epoch.
            length: number of steps per epoch, if it is known.
        """
        state, training = self.state, self.training
        # Rounded, since 0.3 * 10 is 3.0000000000000004.
        end = ceil(round(training.until * state.steps, 6))
        while state.step < end and not self.exported.is_finished:
            self.epoch(batches, length)
            is_done = state.step >= end
            is_due = not training.evaluate_steps and state.epoch % training.evaluate_every == 0
            # The evaluation that ended the training within this epoch has its record.
            if not self.exported.is_finished:
                self.log(is_done or is_due)
            is_done = is_done or self.exported.is_finished
            if self.checkpoint_is_due(is_done):
                self.save()

    def epoch(self, batches: Batches, length: int | None) -> None:
        """Train to the end of the current epoch; after a checkpoint within it, the rest of it."""
        state, training = self.state, self.training
        self.scheme.train()
        after_skip: Callable[[], None] | None = None
        if state.epoch_step and self.epoch_random is not None:
            # The loader draws the order of an epoch when the epoch begins; the current state is
            # that of the step after which the checkpoint was written.
            after_skip = functools.partial(self.engine.set_random_state, self.engine.random_state())
            self.engine.set_random_state(self.epoch_random)
        else:
            self.epoch_random = self.engine.random_state()
        steps = batches.epoch(state.epoch, state.epoch_step, after_skip)
        timed = self.timed(steps, length)
        self.speed.start()
        for step in self.later.announced(timed, state.epoch_step, self.engine.autocast):
            self.step(step)
            if self.on_step is not None:
                self.on_step(state)
            if state.step == state.steps:
                break
            if training.evaluate_steps and state.step % training.evaluate_steps == 0:
                self.log(True)
                if self.exported.is_finished:
                    break
            elif self.record_is_due(length):
                self.log(False)
            if self.checkpoint_is_due_within_epoch():
                self.save()
            self.speed.start()
        if state.epoch_step == 0:
            raise ValueError(
                f"the loader gave no batch in epoch {state.epoch}, after {state.step} of "
                f"{state.steps} steps; it must be possible to iterate over it in each epoch"
            )
        state.epoch += 1
        state.epoch_step = 0

    def timed(self, steps: Iterator[list[Batch]], length: int | None) -> Iterator[list[Batch]]:
        """Yield the remaining steps of the training, on the device and with their position."""
        state, seed = self.state, self.training.seed
        first, first_in_epoch = state.step, state.epoch_step
        for index, micro_batches in enumerate(itertools.islice(steps, state.steps - first)):
            start = time.perf_counter()
            step = first + index
            keys = {} if length is None else {"epoch_ends": first_in_epoch + index + 1 == length}
            position = clock(step, step / state.steps, seed, **keys)
            batches = [self.engine.move(batch) | position for batch in micro_batches]
            state.seconds += time.perf_counter() - start
            yield batches

    def step(self, batches: list[Batch]) -> None:
        """Run one step on its micro-batches."""
        start = time.perf_counter()
        self.speed.count(batches)
        self.engine.set_learning_rates(self.learning_rate)
        losses = train_step(self.engine, self.scheme, batches)
        self.monitor.update(losses, self.state.step, batches)
        self.state.step += 1
        self.state.epoch_step += 1
        self.exported.update(self.state.step)
        self.state.seconds += time.perf_counter() - start

    def learning_rate(self, initial: float) -> float:
        """Current learning rate of a parameter group with this initial one."""
        return self.training.learning_rate(initial, self.state.progress, self.state.steps)

    def log(self, evaluates: bool) -> None:
        """Add a record, with metrics if ``evaluates``."""
        self.sync_buffers()
        lr = self.training.optimizer.options.get("lr", 0.0)
        record: Record = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            # Waits for the device, so that the time of all steps is measured.
            "losses": self.monitor.means(),
            "lr": self.learning_rate(lr),
            "seconds": round(self.state.seconds, 3),
        }
        self.speed.stop()
        record |= {"speed": self.speed.measured()} | self.later.metrics()
        if evaluates and self.evaluate is not None:
            record |= self.exported.evaluate(
                self.scheme.export, self.evaluate, self.state.epoch, self.state.step
            )
            self.scheme.train()
        self.add(record)

    def add(self, record: Record) -> None:
        """Keep and report a record."""
        self.records.append(record)
        if self.report is not None:
            self.report(record)

    def record_is_due(self, length: int | None) -> bool:
        """Whether a record without metrics is due after this step, which is not an epoch's last."""
        steps = self.training.log_steps
        return bool(steps and self.state.step % steps == 0 and self.state.epoch_step != length)

    def checkpoint_is_due(self, is_done: bool) -> bool:
        """Whether a checkpoint is written at the end of the current epoch."""
        every = self.training.checkpoint_every
        if is_done:
            return bool(every or self.training.checkpoint_steps)
        return bool(every) and self.state.epoch % (every or 1) == 0

    def checkpoint_is_due_within_epoch(self) -> bool:
        """Whether a checkpoint is due after this step. Every rank must ask after every step."""
        steps = self.training.checkpoint_steps
        is_over = self.timer.is_due()
        return is_over or bool(steps and self.state.step % steps == 0)

    def save(self) -> None:
        """Write a checkpoint, if there is a file for it."""
        self.timer.restart()
        self.speed.stop()
        if self.checkpoint is None:
            return
        self.sync_buffers()
        extra = {"clock": asdict(self.state), "records": self.records}
        extra |= self.exported.state()
        own = {"epoch_random": self.epoch_random, "watch": self.monitor.state()}
        own["later"] = self.later.state()
        self.engine.save(self.scheme, self.checkpoint, extra, own)

    def sync_buffers(self) -> None:
        """Average the buffers of the scheme, and of the average of its weights, over ranks."""
        self.engine.sync_buffers(self.scheme)
        self.exported.sync_buffers()

    def finish(self) -> None:
        """Set the scheme to the weights that are exported."""
        self.later.end()
        self.sync_buffers()
        self.exported.apply()

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; ValueError if it is damaged or of another training."""
        content = self.engine.load(self.scheme, checkpoint)
        try:
            state = TrainState(**content["clock"])
            records = [dict(record) for record in content["records"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint {checkpoint}: 'clock' or 'records' are not those of this version "
                f"({error}). {checkpoints.REMEDY}."
            ) from error
        if state.steps != self.state.steps:
            raise ValueError(
                f"checkpoint {checkpoint} is of a run of {state.steps} steps, this one has "
                f"{self.state.steps}"
            )
        vars(self.state).update(vars(state))
        self.epoch_random = content.get("epoch_random")
        self.exported.restore(content, checkpoint)
        self.later.restore(content.get("later", {}))
        if "watch" in content:
            self.monitor.restore(content["watch"])
        for record in records:
            self.add(record)
