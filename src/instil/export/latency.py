"""How long one answer takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, batch_size, first_tensor, side_effect_free

LONGEST = 3000.0
"""Milliseconds after which no more repeats are begun."""


def measure(
    ask: Callable[[Batch], Any],
    batch: Batch,
    batch_size: int = 1,
    repeats: int = 50,
    warm_up: int = 5,
    whole: bool = False,
) -> dict[str, float | int]:
    """Median and 90th percentile, in milliseconds, of ``ask(batch)`` at ``batch_size``, on the device that holds the batch.

    ``whole``: the batch is one of that size, however many rows it has (a node comes with its neighbours). ``ask`` is a net (asked in eval mode,
    without gradients), an ONNX ``Session``, or any function of a batch.
    """
    if batch_size < 1 or repeats < 1 or warm_up < 0:
        raise ValueError(
            f"batch_size and repeats are at least 1, warm_up at least 0; not {batch_size}, {repeats} and {warm_up}"
        )
    sample = batch if whole else resized(batch, batch_size)
    wait: Callable[[], None] = (
        torch.cuda.synchronize if first_tensor(sample).is_cuda else lambda: None
    )
    quiet: AbstractContextManager[Any] = (
        side_effect_free(ask) if isinstance(ask, nn.Module) else torch.no_grad()
    )
    times = []
    with quiet:
        for turn in range(warm_up + repeats):
            wait()
            start = time.perf_counter()
            ask(sample)
            wait()
            if turn >= warm_up:
                times.append(1000 * (time.perf_counter() - start))
            if sum(times) > LONGEST and len(times) > 2:
                break
    p90 = statistics.quantiles(times, n=10, method="inclusive")[-1] if len(times) > 1 else times[0]
    return {
        "median_ms": statistics.median(times),
        "p90_ms": p90,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
    }


def resized(batch: Batch, n: int) -> Batch:
    """The batch with ``n`` samples: cut, or gone round again."""
    there = batch_size(batch)
    rows = torch.arange(n) % there
    return {
        k: v[rows.to(v.device)] if isinstance(v, Tensor) and v.ndim and len(v) == there else v
        for k, v in batch.items()
    }
