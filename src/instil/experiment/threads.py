"""Number of threads for training small networks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Batch, Outputs, Scheme, to_float32

NUM_PASSES = 7
"""Timed passes per number of threads; the first warms up."""

SMALL_NET_SECONDS = 0.02
"""Seconds of a pass below which one thread is used.

Threads that wait for each other cost such networks minutes if other programs use a core.
"""

REQUIRED_SPEEDUP = 0.8
"""Share of the time with one thread that several threads may take at most."""


def choose_num_threads(scheme: Scheme, batch: Batch) -> int:
    """Set torch's number of threads to all or one, by timing the networks of a scheme.

    One thread is used for small networks, and if several threads are not clearly faster. The
    number stays as it is if there is an accelerator or ``OMP_NUM_THREADS`` is set.

    Args:
        scheme: prepared scheme.
        batch: batch of its student.

    Returns:
        Number of threads.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1 or torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ:
        return num_threads

    def run_networks() -> None:
        loss = _sum_of_outputs(scheme.student(batch))
        parameters = [part for part in scheme.student.parameters() if part.requires_grad]
        # An estimator has no parameters.
        if parameters:
            torch.autograd.grad(loss, parameters, allow_unused=True)
        scheme.teacher_outputs(batch)

    # One thread is timed first: small networks need no second measurement.
    seconds = _seconds(run_networks, 1)
    if seconds > SMALL_NET_SECONDS:
        is_faster = _seconds(run_networks, num_threads) < REQUIRED_SPEEDUP * seconds
        torch.set_num_threads(num_threads if is_faster else 1)
    return torch.get_num_threads()


def _sum_of_outputs(outputs: Outputs) -> Tensor:
    """Scalar that depends on the logits, or on all outputs of a network without logits."""
    tensors = [value for value in outputs.values() if isinstance(value, Tensor)]
    if "logits" in outputs:
        tensors = [outputs["logits"]]
    return torch.stack([to_float32(tensor).sum() for tensor in tensors]).sum()


def _seconds(function: Callable[[], None], num_threads: int) -> float:
    torch.set_num_threads(num_threads)
    seconds = []
    for _ in range(NUM_PASSES):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    # The minimum is the time that other programs disturb least.
    return min(seconds[1:])
