"""Forecast of the memory of each process of a training, and the layout that fits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from instil.core import Batch, Scheme
from instil.engine import check_shardable
from instil.engine.cpu_offload import (
    offload_blocks,
    offloaded_parameters,
    undo_offload,
    without_offload,
)
from instil.engine.devices import dtype_of
from instil.engine.optimization import Optimization
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import build_training
from instil.functional.tokens.chunk_sizes import sizes_of_device
from instil.plan.memory.layout import Layout, RankMemory, TrainingMemory
from instil.plan.memory.offloadable_teachers import offloadable_teachers
from instil.plan.memory.optimizer_memory import optimizer_memory
from instil.plan.memory.sharded_units import teacher_parameters
from instil.plan.memory.traced_step import StepMemory, gathered_weights, trace_step
from instil.plan.memory.valueless_stage import (
    build_stage,
    clear_errors,
    first_micro_batch,
    without_weights,
)
from instil.recipe import RecipeError
from instil.recipe.sections import Recipe
from instil.report.quantities import plain, size

RESERVE = 0.1
"""Share of a device's memory for what the forecast does not count: the allocator's fragments, the
CUDA context, and buffers of kernels and of NCCL."""
MACHINE = 8
"""Number of processes that share a copy in the layouts of several groups, as on one machine."""
NOT_MEASURED = (
    "The forecast counts tensors. Fragments of the allocator, the CUDA context, and buffers of "
    "kernels and of NCCL are not measured: 10 % of the memory stay free for them."
)


@dataclass
class MemoryForecast:
    """Forecast of a recipe for a number of processes.

    Args:
        recipe: recipe without stages.
        ranks: number of processes.
        device: type of their devices, ``cuda`` or ``cpu``: chunks of losses depend on it.

    Raises:
        RecipeError: for a recipe whose memory needs values, or whose batch is too small.
    """

    recipe: Recipe
    ranks: int
    device: str = "cuda"
    _steps: dict[tuple[Any, ...], StepMemory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.experiment = Experiment.from_recipe(without_weights(self.recipe))
        self.batch = self._batch(self.recipe.train.accumulate)
        self.scheme: Scheme = build_stage(self.experiment, self.batch)
        train = self.recipe.train
        training = build_training(train, 0, 1, list(self.scheme.learners))
        optimizations: dict[str, Optimization] = {
            learner: training.optimization_of(learner) for learner in self.scheme.learners
        }
        self._can_shard = _can_shard(self.scheme, optimizations.values())
        states = optimizer_memory(self.scheme, optimizations)
        self.offloadable = offloadable_teachers(self.experiment.recipe, self.scheme)
        self._dtype = dtype_of(train.precision)
        self._training = TrainingMemory(self.scheme, states, self.device == "cuda", self._dtype)

    def of_rank(self, layout: Layout) -> RankMemory:
        """Forecast the memory of the process with the largest shards.

        Args:
            layout: distribution over processes.
        """
        key = (layout.is_sharded, layout.is_checkpointed, layout.accumulate, layout.offloaded)
        with self._offload(layout):
            if key not in self._steps:
                self._steps[key] = self._trace(layout)
            return self._training.of_rank(layout, self._steps[key])

    def offloaded_bytes(self, layout: Layout) -> int:
        """Return the bytes of the teachers' weights that stay in the memory of the machine."""
        with self._offload(layout):
            return sum(parameter.nbytes for parameter in offloaded_parameters(self.scheme))

    @contextlib.contextmanager
    def _offload(self, layout: Layout) -> Iterator[None]:
        """Context in which the teachers that a layout names are offloaded."""
        blocks: list[nn.Module] = []
        for path in layout.offloaded:
            blocks += offload_blocks(self.offloadable[path])
        try:
            yield
        finally:
            undo_offload(blocks)

    def _trace(self, layout: Layout) -> StepMemory:
        batch = self._batch(layout.accumulate)
        dtype = self._dtype if layout.is_sharded else torch.float32
        with contextlib.ExitStack() as stack:
            stack.enter_context(clear_errors())
            stack.enter_context(sizes_of_device(self.device))
            stack.enter_context(gathered_weights(self.scheme, dtype))
            # The copies of a block of shards count as gathered weights.
            if layout.is_sharded:
                stack.enter_context(without_offload(self.scheme))
            precision = self.recipe.train.precision
            return trace_step(self.scheme, batch, precision, layout.is_checkpointed)

    def layouts(self) -> list[Layout]:
        """Return layouts of this recipe in the order of their time per step, the fastest first."""
        accumulate = self.recipe.train.accumulate
        layouts = []
        for is_checkpointed in (False, True):
            for is_sharded, group in self._shardings():
                layout = Layout(self.ranks, is_sharded, is_checkpointed, accumulate, group)
                layouts.append(layout)
        return layouts

    def _shardings(self) -> list[tuple[bool, int | None]]:
        """Whether weights are sharded, and the size of groups, by the amount of communication."""
        if self.ranks == 1 or not self._can_shard:
            return [(False, None)]
        group = self.recipe.train.shard_group or MACHINE
        in_groups = group < self.ranks and self.ranks % group == 0
        return [(False, None), *([(True, group)] if in_groups else []), (True, None)]

    def propose(self, memory: float) -> Layout | None:
        """Return the fastest layout that fits, with further micro-batches if needed.

        Args:
            memory: bytes of a device.

        Returns:
            The layout; None if even micro-batches of one sample do not fit.
        """
        for layout in self._candidates():
            if self.fits(layout, memory):
                return layout
        return None

    def fits(self, layout: Layout, memory: float) -> bool:
        """Whether a layout needs at most the memory of a device, without the reserve."""
        return self.of_rank(layout).total <= (1 - RESERVE) * memory

    def _candidates(self) -> Iterator[Layout]:
        """Layouts and further micro-batches, then the same with offloaded teachers."""
        # Each micro-batch copies all offloaded weights, which takes longer than a smaller one.
        for offloaded in dict.fromkeys([(), tuple(self.offloadable)]):
            layouts = [replace(layout, offloaded=offloaded) for layout in self.layouts()]
            yield from layouts
            smallest = layouts[-1]
            while 2 * smallest.accumulate * self.ranks <= self.recipe.data.batch_size:
                smallest = replace(smallest, accumulate=2 * smallest.accumulate)
                yield smallest

    def _batch(self, accumulate: int) -> Batch:
        return first_micro_batch(self.experiment, self.ranks * accumulate)


def forecast_memory(recipe: Recipe, ranks: int, memory: float | None = None) -> dict[str, Any]:
    """Forecast the memory of each process of a training from the configurations of its models.

    Weights are not loaded. The passes of a step are traced on the meta device.

    Args:
        recipe: recipe without stages. Its ``device`` is that of the training: ``auto`` is a GPU.
        ranks: number of processes.
        memory: bytes of the device of a process. None: no layout is proposed.

    Returns:
        ``recipe`` (name), ``ranks``, ``memory``, ``micro_batch`` (shape of its first tensor),
        ``parameters`` (of ``student`` and ``teacher``), ``layouts`` (``name``, the fields of
        ``RankMemory``, ``total`` and ``fits``), ``proposal`` (changes of the recipe; None),
        ``notes`` and ``problems``.

    Raises:
        RecipeError: see ``MemoryForecast``.
    """
    if ranks < 1:
        raise RecipeError(f"--ranks: Expected 1 or more processes, got {ranks}")
    forecast = MemoryForecast(recipe, ranks, "cpu" if recipe.device == "cpu" else "cuda")
    layouts = forecast.layouts()
    proposal = None if memory is None else forecast.propose(memory)
    if proposal is not None and proposal not in layouts:
        layouts.append(proposal)
    problems = []
    if memory is not None and proposal is None:
        problems.append(
            f"No layout of {ranks} processes fits into the memory. Use more processes, shorter "
            "rows, a smaller teacher or a recorded one (instil record)"
        )
    teachers = teacher_parameters(forecast.scheme)
    of_teacher = sum(parameter.numel() for parameter in teachers)
    of_all = sum(parameter.numel() for parameter in forecast.scheme.parameters())
    return {
        "recipe": recipe.name,
        "ranks": ranks,
        "memory": memory,
        "micro_batch": list(next(iter(forecast.batch.values())).shape),
        "parameters": {"student": of_all - of_teacher, "teacher": of_teacher},
        "layouts": [_row(forecast, layout, memory) for layout in layouts],
        "proposal": None if proposal is None else proposal.changes,
        "notes": _notes(forecast, proposal or layouts[0]),
        "problems": problems,
    }


def _notes(forecast: MemoryForecast, layout: Layout) -> list[str]:
    offloaded = forecast.offloaded_bytes(layout)
    if not offloaded:
        return [NOT_MEASURED]
    return [
        NOT_MEASURED,
        f"teacher.cpu_offload keeps {plain(size(offloaded))} of weights in the memory of the "
        "machine, which every pass of the teacher copies to the device block by block.",
    ]


def _row(forecast: MemoryForecast, layout: Layout, memory: float | None) -> dict[str, Any]:
    parts = forecast.of_rank(layout)
    fits = None if memory is None else forecast.fits(layout, memory)
    return {"name": layout.name, **asdict(parts), "total": parts.total, "fits": fits}


def _can_shard(scheme: Scheme, optimizations: Iterable[Optimization]) -> bool:
    """Whether the weights of a scheme can be sharded and its optimizers update shards."""
    try:
        check_shardable(scheme, optimizations)
    except ValueError:
        return False
    return True
