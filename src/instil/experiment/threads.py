"""How many threads a small net is best trained with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Batch, Scheme, to_float32

REPEATS = 7
SMALL = 0.02  # seconds of a pass: below, threads that wait for each other cost minutes where other work has a core
CLEARLY = 0.8  # of the time with one thread


def choose_num_threads(scheme: Scheme, batch: Batch) -> int:
    """Set and return torch's number of threads: all, or one where that is not clearly slower, or where the nets are small.

    Tries the nets of a prepared scheme on ``batch``; leaves things as they are where there is an accelerator or ``OMP_NUM_THREADS`` is set.
    """
    most = torch.get_num_threads()
    if most == 1 or torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ:
        return most

    def ask() -> None:
        outputs = scheme.student(batch)
        answer = (
            [outputs["logits"]]
            if "logits" in outputs
            else [value for value in outputs.values() if isinstance(value, Tensor)]
        )
        loss = torch.stack([to_float32(value).sum() for value in answer]).sum()
        torch.autograd.grad(
            loss, [p for p in scheme.student.parameters() if p.requires_grad], allow_unused=True
        )
        scheme.teacher_outputs(batch)

    one = _seconds(ask, 1)
    if one > SMALL:
        torch.set_num_threads(most if _seconds(ask, most) < CLEARLY * one else 1)
    return torch.get_num_threads()


def _seconds(ask: Callable[[], None], threads: int) -> float:
    torch.set_num_threads(threads)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return min(times[1:])
