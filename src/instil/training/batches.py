"""A loader as a sequence of training steps."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from instil.capabilities import Calibrated
from instil.core import Batch, Objectives, Outputs, Scheme, batch_size, side_effect_free
from instil.engine import Engine, gather_rows
from instil.engine.processes import max_over_ranks, sum_over_ranks
from instil.items.loader_items import as_loader, named_batch
from instil.items.selection import outputs_to_float32, rows_of


@dataclass
class Batches:
    """Loader whose batches are grouped into steps of ``accumulate`` micro-batches.

    Every process gets the same number of steps and of micro-batches per step.

    Args:
        loader: yields dicts, or tuples whose values ``names`` names.
        names: names of the values of a tuple, in order.
        accumulate: number of micro-batches per step.
        engine: engine of the training; it knows the device and the other processes.
    """

    loader: Iterable[Any]
    names: Sequence[str]
    accumulate: int
    engine: Engine

    def __post_init__(self) -> None:
        self.loader = as_loader(self.loader)

    def steps(self) -> int:
        """Number of optimizer steps per pass over the loader.

        Raises:
            ValueError: if the loader has no length.
        """
        if not isinstance(self.loader, Sized):
            raise ValueError(
                "epochs: a loader without a length needs steps. Expected Training(steps=...)"
            )
        return ceil(max_over_ranks(len(self.loader), self.engine.device) / self.accumulate)

    def sample(self) -> Batch:
        """First batch, for a dry run; random states stay as they were.

        Raises:
            ValueError: if the loader yields no batch.
        """
        states = [generator.get_state() for generator in self.generators()]
        with side_effect_free(torch.nn.Module()):
            item = next(iter(self.loader), None)
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)
        if item is None:
            raise ValueError("the loader gives no batch")
        return self.named(item)

    def collect_statistics(self, scheme: Scheme) -> None:
        """Collect teacher statistics for objectives with ``calibration_samples``, without labels.

        The order is that of an epoch. Only those objectives change; random states stay as they
        were.

        Args:
            scheme: a prepared scheme after ``Engine.setup``.
        """
        parts = [part for part in scheme.modules() if isinstance(part, Objectives)]
        calibrated = list(itertools.chain(*(_calibrated(part).values() for part in parts)))
        num_samples = max((one.calibration_samples for one in calibrated), default=0)
        if not num_samples:
            return
        states = [generator.get_state() for generator in self.generators()]
        rows = self._teacher_statistics(scheme, num_samples)
        for part in parts:
            for name, objective in _calibrated(part).items():
                objective.load_statistics(rows_of(name, rows))
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)

    def _teacher_statistics(self, scheme: Scheme, num_samples: int) -> dict[str, Tensor]:
        """Statistics of the teacher's outputs for the first samples of an epoch, of all ranks."""
        rows: dict[str, list[Tensor]] = {}
        seen = torch.zeros((), dtype=torch.int64, device=self.engine.device)
        # A generator must yield these batches once more, for the training.
        replayed = getattr(self.loader, "replayed", contextlib.nullcontext)
        with side_effect_free(scheme), replayed():
            for micro_batches in self.epoch(0):
                parts: dict[str, list[Tensor]] = {}
                for batch in map(self.engine.move, micro_batches):
                    unlabelled = {key: value for key, value in batch.items() if key != "label"}
                    with self.engine.autocast():
                        teacher = scheme.teacher_outputs(unlabelled)
                    statistics = _statistics(scheme.objectives, teacher, unlabelled)
                    for key, value in statistics.items():
                        parts.setdefault(key, []).append(value)
                    seen += batch_size(batch)
                # Gathered in every step: clusters start from rows, so that they depend on the
                # order, which is then that of one process.
                for key, values in parts.items():
                    rows.setdefault(key, []).append(gather_rows(torch.cat(values)))
                if sum_over_ranks(seen.clone()) >= num_samples:
                    break
        return {key: torch.cat(values) for key, values in rows.items()}

    def generators(self) -> list[torch.Generator]:
        """Random generator of the loader, if it has one."""
        generator = getattr(self.loader, "generator", None)
        return [generator] if isinstance(generator, torch.Generator) else []

    def epoch(
        self, epoch: int, skip: int = 0, after_skip: Callable[[], None] | None = None
    ) -> Iterator[list[Batch]]:
        """Steps of an epoch.

        Args:
            epoch: index of the epoch, passed to the loader's ``set_epoch`` if it has one.
            skip: number of steps that an interrupted training has done; they are read and dropped.
            after_skip: called before the first other step is read, which may draw random numbers.

        Yields:
            The micro-batches of a step.

        Raises:
            ValueError: if this process has no batch at all, but others have.
        """
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)
        items = iter(self.loader)
        spare: Batch | None = None
        for step in itertools.count():
            if step == skip and after_skip is not None:
                after_skip()
            own = [self.named(item) for item in itertools.islice(items, self.accumulate)]
            most = max_over_ranks(len(own), self.engine.device)
            if not most:
                return
            spare = own[-1] if own else spare
            if spare is None:
                raise ValueError("this rank has no batch at all; give every rank data")
            if step >= skip:
                # All processes run the same number of micro-batches: collectives would hang.
                yield own + [self.empty_like(spare)] * (most - len(own))

    def named(self, item: Any) -> Batch:
        """Convert an item of the loader to a dict; the values of tuples are named in order.

        Raises:
            ValueError: if the item cannot be read as a batch.
        """
        return named_batch(item, self.names)

    @staticmethod
    def empty_like(batch: Batch) -> Batch:
        """Copy of a batch in which no item counts, for a process that has run out of data."""
        # Rows of a second task, or of rejected texts, have a mask under a prefixed key.
        masks = [key for key in batch if key.endswith("_valid") and key != "teacher_valid"]
        empty = {key: torch.zeros_like(batch[key]) for key in masks}
        if "valid" in batch:
            return batch | empty | {"valid": torch.zeros_like(batch["valid"])}
        return batch | empty | {"valid": torch.zeros(batch_size(batch), dtype=torch.bool)}


def _calibrated(objectives: Objectives) -> dict[str, Calibrated]:
    """Objectives that need statistics of teacher outputs, by name."""
    return {
        name: objective
        for name, objective in objectives.named()
        if isinstance(objective, Calibrated) and objective.calibration_samples
    }


def _statistics(objectives: Objectives, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Rows of teacher statistics of all objectives, under ``name.key``."""
    teacher = outputs_to_float32(teacher, objectives.reads("teacher"))
    statistics: dict[str, Tensor] = {}
    for name, objective in _calibrated(objectives).items():
        rows = objective.collect_statistics(teacher, batch)
        statistics |= {f"{name}.{key}": value for key, value in rows.items()}
    return statistics
