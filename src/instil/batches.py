"""A loader as the steps of a training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Objectives, Scheme, batch_size, side_effect_free
from instil.engine import Engine, gather_rows, world_size


@dataclass
class Batches:
    """A loader as steps: lists of ``accumulate`` named batches, as many on every rank.

    Args:
        loader: gives dicts, or tuples whose values ``names`` names.
        names: of the values of a tuple, in order.
        accumulate: micro-batches of a step.
        engine: knows the device and the other ranks.
    """

    loader: Iterable[Any]
    names: Sequence[str]
    accumulate: int
    engine: Engine

    def steps(self) -> int:
        """Optimizer steps a pass."""
        if not isinstance(self.loader, Sized):
            raise ValueError("a loader without a length needs steps instead of epochs")
        return ceil(self.engine.all_reduce_max(len(self.loader)) / self.accumulate)

    def sample(self) -> Batch:
        """A batch to try things on; the random state stays as it was."""
        states = [generator.get_state() for generator in self.generators()]
        with side_effect_free(torch.nn.Module()):
            item = next(iter(self.loader), None)
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)
        if item is None:
            raise ValueError("the loader gives no batch")
        return self.named(item)

    def collect_statistics(self, scheme: Scheme) -> None:
        """Show objectives that ask for it what the teacher says of many samples, in the order of an epoch and without their labels.

        Nothing moves but what those objectives keep; the random state stays as it was.
        """
        parts = [part for part in scheme.modules() if isinstance(part, Objectives)]
        wanted = max(
            (objective.calibration_samples for part in parts for _, objective in part.named()),
            default=0,
        )
        if not wanted:
            return
        states = [generator.get_state() for generator in self.generators()]
        rows: dict[str, list[Tensor]] = {}
        seen = 0
        with side_effect_free(scheme):
            for micro_batches in self.epoch(0):
                for batch in map(self.engine.move, micro_batches):
                    known = {key: value for key, value in batch.items() if key != "label"}
                    with self.engine.autocast():
                        teacher = scheme.teacher_outputs(known)
                    for key, value in scheme.objectives.collect_statistics(teacher, known).items():
                        rows.setdefault(key, []).append(value)
                    seen += batch_size(batch)
                if self.engine.all_reduce_max(seen) * world_size() >= wanted:
                    break
        for part in parts:
            part.load_statistics(
                {key: gather_rows(torch.cat(values)) for key, values in rows.items()}
            )
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)

    def generators(self) -> list[torch.Generator]:
        """The loader's own source of randomness, where it has one."""
        generator = getattr(self.loader, "generator", None)
        return [generator] if isinstance(generator, torch.Generator) else []

    def epoch(
        self, epoch: int, skip: int = 0, after_skip: Callable[[], None] | None = None
    ) -> Iterator[list[Batch]]:
        """The steps of an epoch.

        Args:
            epoch: its index; a loader with ``set_epoch`` is told it.
            skip: steps that an interrupted training has done: they are read and left out.
            after_skip: called before the first other step is read, which may draw random numbers.

        Yields:
            The micro-batches of a step.
        """
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)
        items = iter(self.loader)
        spare: Batch | None = None
        for step in itertools.count():
            if step == skip and after_skip is not None:
                after_skip()
            own = [self.named(item) for _, item in zip(range(self.accumulate), items, strict=False)]
            most = self.engine.all_reduce_max(len(own))
            if not most:
                return
            spare = own[-1] if own else spare
            if spare is None:
                raise ValueError("this rank has no batch at all; give every rank data")
            if step >= skip:
                yield own + [self.empty_like(spare)] * (most - len(own))

    def named(self, item: Any) -> Batch:
        """A batch as a dict; tuples are named in order."""
        if isinstance(item, Mapping):
            return dict(item)
        values = item if isinstance(item, (tuple, list)) else (item,)
        if len(values) > len(self.names):
            raise ValueError(
                f"loader: a batch has {len(values)} values. Expected a dict, or a tuple of "
                f"{len(self.names)} ({', '.join(self.names)}). Name all values with names="
            )
        return dict(zip(self.names, values, strict=False))

    @staticmethod
    def empty_like(batch: Batch) -> Batch:
        """The same batch with nothing in it that counts: what a rank adds that has run out of data."""
        valid = (
            batch["valid"] if "valid" in batch else torch.zeros(batch_size(batch), dtype=torch.bool)
        )
        return batch | {"valid": torch.zeros_like(valid)}
