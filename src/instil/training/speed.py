"""Throughput, memory and utilisation of the device, for the records of a training."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from instil.core import Batch, Scheme, batch_size
from instil.engine import Engine, world_size
from instil.engine.memory_in_use import peak_memory
from instil.engine.processes import max_over_ranks, sum_over_ranks

PEAK_OPERATIONS = {
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
    "V100": 125e12,
    "MI300X": 1307e12,
}
"""Dense bfloat16 operations per second of a device (float16 of a V100), by a word of its name."""


class Speed:
    """Samples and tokens per second since the last record, and the largest memory so far.

    Evaluations and checkpoints do not count, the wait for data does.

    Args:
        engine: engine of the training.
        scheme: scheme whose student and teacher are counted.
    """

    def __init__(self, engine: Engine, scheme: Scheme):
        self.engine = engine
        self.scheme = scheme
        self._started: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._seconds = 0.0
        # Tensors on the device, which no step waits for, or plain numbers, which cost less.
        self._samples: Tensor | int = 0
        self._tokens: Tensor | None = None

    def start(self) -> None:
        """Begin to measure the time, or continue; without effect while it is measured."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Interrupt the measurement of time, for an evaluation or a checkpoint."""
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
        self._started = None

    def count(self, batches: Sequence[Batch]) -> None:
        """Count the samples of a step, without waiting for the device.

        Args:
            batches: its micro-batches, before the scheme changes them.
        """
        for batch in batches:
            self._samples = self._samples + _num_samples(batch)
            if "attention_mask" in batch:
                num_tokens = batch["attention_mask"].sum()
                self._tokens = num_tokens if self._tokens is None else self._tokens + num_tokens

    def measured(self) -> dict[str, float]:
        """Return the rates since the last call. Call it on every rank.

        Returns:
            ``samples_per_second`` and, for texts, ``tokens_per_second`` of all processes together;
            ``memory``, the peak in bytes of the process with the largest one; ``mfu``, the share of
            ``PEAK_OPERATIONS`` that the weights need, for texts on such a device.
        """
        has_tokens, seconds = self._tokens is not None, self._seconds
        counts = [int(self._samples), 0 if self._tokens is None else int(self._tokens)]
        samples, tokens = sum_over_ranks(torch.tensor(counts, device=self.engine.device)).tolist()
        self._reset()
        rates: dict[str, float] = {}
        if seconds > 0:
            rates["samples_per_second"] = round(samples / seconds, 3)
            if has_tokens:
                rates["tokens_per_second"] = round(tokens / seconds, 3)
                rates |= self._utilisation(tokens / seconds)
        memory = max_over_ranks(peak_memory(self.engine.device), self.engine.device)
        return rates | ({"memory": memory} if memory else {})

    def _utilisation(self, tokens_per_second: float) -> dict[str, float]:
        peak = peak_operations(self.engine.device)
        if peak is None:
            return {}
        operations = operations_per_token(self.scheme)
        return {"mfu": round(operations * tokens_per_second / (peak * world_size()), 4)}


def operations_per_token(scheme: Scheme) -> int:
    """Return the operations of one token in the matrix products of a step.

    A weight needs 2 in a forward pass, 2 for the gradient of its input, and 2 for its own one if it
    is trained (Chowdhery et al. 2022, appendix B, without attention). Embeddings are not counted,
    and those of mixtures of experts as if all were used.

    Args:
        scheme: scheme with a student and, optionally, a teacher.
    """
    student = sum((6 if p.requires_grad else 4) * p.numel() for p in _weights(scheme.student))
    return student + sum(2 * p.numel() for p in _weights(scheme.teacher))


def peak_operations(device: torch.device) -> float | None:
    """Return the entry of ``PEAK_OPERATIONS`` for a device, None if there is none."""
    if device.type != "cuda":
        return None
    # Whole words: an L40 is not an L4.
    words = re.split(r"\W+", torch.cuda.get_device_name(device))
    return next((peak for word, peak in PEAK_OPERATIONS.items() if word in words), None)


def _weights(net: nn.Module | None) -> Iterable[nn.Parameter]:
    """Parameters of a network, once each. A head that is tied to an embedding is counted."""
    modules: Iterable[nn.Module] = () if net is None else net.modules()
    weights: dict[int, nn.Parameter] = {}
    for part in modules:
        if not isinstance(part, nn.Embedding):
            weights |= {id(p): p for p in part.parameters(recurse=False)}
    return weights.values()


def _num_samples(batch: Batch) -> Tensor | int:
    """Samples of a batch; those of a process that has run out of data do not count."""
    if "valid" not in batch:
        return batch_size(batch)
    valid: Tensor = batch["valid"]
    return (valid if valid.ndim == 1 else valid.flatten(1).any(1)).sum()
