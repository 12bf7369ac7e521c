"""Measured duration of a training step."""

from __future__ import annotations

import time

from instil.core import Batch, Scheme
from instil.engine import Engine
from instil.training.clock import clock
from instil.training.step import train_step


def first_step_clock(seed: int) -> Batch:
    """Entries that a training adds to the batch of its first step."""
    return clock(0, 0.0, seed, epoch_ends=False)


def seconds_per_step(engine: Engine, scheme: Scheme, batch: Batch, num_steps: int) -> float:
    """Measure the mean duration of a training step on one micro-batch.

    The steps train the scheme. Run one step before the measurement, because the first step
    allocates the state of the optimizers.

    Args:
        engine: engine on which ``setup`` was called with the scheme.
        scheme: the scheme, in train mode.
        batch: the micro-batch, with its clock.
        num_steps: number of steps to average over.

    Returns:
        Seconds.
    """
    began = time.perf_counter()
    for _ in range(num_steps):
        train_step(engine, scheme, [batch])
    return (time.perf_counter() - began) / num_steps
