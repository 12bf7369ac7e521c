"""Latency of a network or an exported file."""

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
"""Milliseconds after which no further repetition begins."""


def measure(
    model: Callable[[Batch], Any],
    batch: Batch,
    batch_size: int = 1,
    repeats: int = 50,
    warm_up: int = 5,
    keep_rows: bool = False,
) -> dict[str, float | int]:
    """Measure the latency of a model on the device that holds the batch.

    Args:
        model: net (run in eval mode without gradients), ONNX ``Session``, or any function of a
            batch.
        batch: samples.
        batch_size: number of samples per call; the samples of ``batch`` are cut or repeated.
        repeats: largest number of timed calls.
        warm_up: number of calls before them.
        keep_rows: use ``batch`` with all its rows, as where one sample has several rows (a node of
            a graph with its neighbours).

    Returns:
        ``median_ms``, ``p90_ms`` (90th percentile), ``batch_size`` and ``threads``.

    Raises:
        ValueError: if a number is too small.
    """
    if batch_size < 1 or repeats < 1 or warm_up < 0:
        raise ValueError(
            "batch_size, repeats, warm_up: too small. Expected at least 1, 1 and 0, got "
            f"{batch_size}, {repeats} and {warm_up}"
        )
    sample = batch if keep_rows else resized(batch, batch_size)
    times = _call_times(model, sample, repeats, warm_up)
    p90 = times[0]
    if len(times) > 1:
        p90 = statistics.quantiles(times, n=10, method="inclusive")[-1]
    return {
        "median_ms": statistics.median(times),
        "p90_ms": p90,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
    }


def _call_times(
    model: Callable[[Batch], Any], batch: Batch, repeats: int, warm_up: int
) -> list[float]:
    """Milliseconds of each timed call."""
    is_cuda = first_tensor(batch).is_cuda
    context: AbstractContextManager[Any] = torch.no_grad()
    if isinstance(model, nn.Module):
        context = side_effect_free(model)
    times: list[float] = []
    with context:
        for index in range(warm_up + repeats):
            # Calls on a GPU return before the work is done, so both ends wait for it.
            if is_cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            model(batch)
            if is_cuda:
                torch.cuda.synchronize()
            if index >= warm_up:
                times.append(1000 * (time.perf_counter() - start))
            if sum(times) > LONGEST and len(times) > 2:
                break
    return times


def resized(batch: Batch, num_samples: int) -> Batch:
    """Return a batch with a number of samples, cut or repeated from the beginning.

    Args:
        batch: at least one sample.
        num_samples: number of samples of the result.
    """
    available = batch_size(batch)
    rows = torch.arange(num_samples) % available
    result = dict(batch)
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.ndim and len(value) == available:
            result[key] = value[rows.to(value.device)]
    return result
