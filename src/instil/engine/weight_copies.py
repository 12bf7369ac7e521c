"""Further values of the trained weights: their moving average, or those of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import get_ema_multi_avg_fn

from instil.core import Objectives, Scheme
from instil.engine.processes import average_over_ranks
from instil.engine.sharding import gather_full, reshard, shard_like

WARM_UP = 10
"""The average of the first n steps has decay (1 + n) / (WARM_UP + n), if that is smaller."""

Entry = tuple[str, dict[str, Tensor | None], str]
"""Name of a tensor in its scheme, and the dictionary and key that hold it in its module."""


class WeightCopy:
    """Values of the tensors that the learners of a scheme change by training.

    These are trainable parameters and buffers. Frozen parameters do not change, and the memories of
    objectives do not belong to a network.

    Args:
        scheme: scheme after ``Engine.setup``; its weights may be sharded.
    """

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._entries = list(_learned(scheme))
        self.values: dict[str, Tensor] = {}

    def capture(self) -> None:
        """Copy the current values."""
        # A forward pass may leave full weights in the place of shards.
        reshard(self._scheme)
        self.values = {name: value.detach().clone() for name, value in self._current()}

    def apply(self) -> None:
        """Set the scheme to these values."""
        # FSDP would reuse full weights that it gathered earlier.
        reshard(self._scheme)
        with torch.no_grad():
            for name, value in self._current():
                value.copy_(self.values[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the scheme has these values."""
        # A copy, not a swap: a value in float32 would lose bits in a weight in bfloat16.
        backup = WeightCopy(self._scheme)
        backup.capture()
        self.apply()
        try:
            yield
        finally:
            backup.apply()

    def sync_buffers(self) -> None:
        """Average the values of real buffers over ranks; parameters are equal on all ranks."""
        parameters = {name for name, _ in self._scheme.named_parameters()}
        average_over_ranks(
            [
                value
                for name, value in self.values.items()
                if name not in parameters and value.is_floating_point()
            ]
        )

    def state(self) -> dict[str, Tensor]:
        """Return the values for a checkpoint, in full. Call it on every rank."""
        state: dict[str, Tensor] = gather_full(self.values)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the values to those of ``state``.

        Args:
            state: result of ``state``, with any number of ranks.

        Raises:
            ValueError: if it is of another scheme.
        """
        current = dict(self._current())
        if differing := sorted(set(state) ^ set(current)):
            raise ValueError(f"it is of another scheme, which differs in '{differing[0]}'")
        self.values = {name: shard_like(state[name], current[name]) for name in current}

    def _current(self) -> Iterator[tuple[str, Tensor]]:
        """Name and current tensor of each entry; a step may replace a buffer by another tensor."""
        for name, owner, key in self._entries:
            value = owner[key]
            assert value is not None
            yield name, value


class WeightAverage(WeightCopy):
    """Exponential moving average of the trained weights and buffers, in float32 or better.

    The decay of the first steps is smaller, so that a short training forgets its initial weights.

    Args:
        scheme: scheme after ``Engine.setup``.
        decay: weight of the earlier average in a step, in (0, 1).
    """

    def __init__(self, scheme: Scheme, decay: float) -> None:
        super().__init__(scheme)
        self.decay = decay
        self.capture()
        self.values = {
            name: value.float() if value.is_floating_point() and value.itemsize < 4 else value
            for name, value in self.values.items()
        }

    def update(self, step: int) -> None:
        """Add the current weights.

        Args:
            step: number of steps done, at least 1.
        """
        decay = min(self.decay, (1 + step) / (WARM_UP + step))
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        for name, current in self._current():
            average = self.values[name]
            if average.is_floating_point():
                averages.append(_local(average))
                currents.append(_local(current.detach()).to(average.dtype))
            else:
                # Counters, such as the number of batches of a BatchNorm layer.
                average.copy_(current)
        get_ema_multi_avg_fn(decay)(averages, currents, step)  # type: ignore[no-untyped-call]


def _learned(scheme: Scheme) -> Iterator[Entry]:
    """Entries of the tensors that training changes, each tensor once."""
    seen: set[int] = set()
    for paths in scheme.learners.values():
        for path in paths:
            root = scheme.get_submodule(path)
            has_memories = isinstance(root, Objectives)
            for module_path, module in root.named_modules(prefix=path):
                prefix = f"{module_path}." if module_path else ""
                for owner, key in _tensors(module, has_memories):
                    if id(owner[key]) not in seen:
                        seen.add(id(owner[key]))
                        yield prefix + key, owner, key


def _tensors(
    module: nn.Module, has_memories: bool
) -> Iterator[tuple[dict[str, Tensor | None], str]]:
    """Dictionary and key of the trainable parameters and of the buffers of one module."""
    for key, parameter in module._parameters.items():
        if parameter is not None and parameter.requires_grad:
            yield module._parameters, key  # type: ignore[misc]
    if has_memories and not isinstance(module, _NormBase):
        return
    for key, buffer in module._buffers.items():
        if buffer is not None and key not in module._non_persistent_buffers_set:
            yield module._buffers, key


def _local(value: Tensor) -> Tensor:
    """This rank's part of a tensor, which shares its memory."""
    return value.to_local() if isinstance(value, DTensor) else value
