"""Layouts of a training over processes, and the memory that each process needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from instil.core import Scheme
from instil.engine.cpu_offload import offloaded_parameters
from instil.engine.shard_precision import fixed_parameters, gathered_dtypes
from instil.plan.memory.optimizer_memory import OptimizerMemory
from instil.plan.memory.sharded_units import (
    Unit,
    shard_bytes,
    teacher_parameters,
    units_of,
)
from instil.plan.memory.traced_step import StepMemory


@dataclass(frozen=True)
class Layout:
    """Distribution of a training over processes.

    Attributes:
        ranks: number of processes.
        is_sharded: whether the processes share one copy of weights, gradients and optimizer states.
        is_checkpointed: whether blocks are computed again in the backward pass.
        accumulate: number of micro-batches of a step.
        shard_group: number of processes that share one copy, if they are not all of them.
        offloaded: recipe paths of teachers that the layout offloads to the CPU, in addition to
            those of the recipe.
    """

    ranks: int
    is_sharded: bool
    is_checkpointed: bool
    accumulate: int = 1
    shard_group: int | None = None
    offloaded: tuple[str, ...] = ()

    @property
    def group(self) -> int:
        """Number of processes that share one copy of the weights."""
        return (self.shard_group or self.ranks) if self.is_sharded else 1

    @property
    def name(self) -> str:
        """Description of the layout for tables."""
        parts = ["sharded" if self.is_sharded else "replicated"]
        if self.shard_group is not None:
            parts.append(f"groups of {self.shard_group}")
        if self.is_checkpointed:
            parts.append("activation checkpointing")
        if self.accumulate > 1:
            parts.append(f"{self.accumulate} micro-batches")
        if self.offloaded:
            parts.append("CPU offload")
        return ", ".join(parts)

    @property
    def changes(self) -> list[str]:
        """Changes of a recipe that set the layout."""
        group = "null" if self.shard_group is None else self.shard_group
        return [
            f"train.shard={str(self.is_sharded).lower()}",
            f"train.shard_group={group}",
            f"train.activation_checkpointing={str(self.is_checkpointed).lower()}",
            f"train.accumulate={self.accumulate}",
            *(f"{path}.cpu_offload=true" for path in self.offloaded),
        ]


@dataclass(frozen=True)
class RankMemory:
    """Memory of one process, in bytes.

    Attributes:
        student: weights of the student, of adapters and of other learners.
        teacher: weights of the teachers, without those of offloaded blocks.
        gradients: gradients of all trained weights.
        optimizer: states of the optimizers.
        activations: tensors that the forward pass saves for the backward pass.
        buffers: all else of forward and backward pass: logits and gradients of losses, blocks that
            are computed again, outputs of the teacher.
        communication: weights and gradients that FSDP2 gathers at a time, and the gradients of
            earlier micro-batches.
        update: buffers of the update, which exist when activations do not.
    """

    student: int
    teacher: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    communication: int
    update: int

    @property
    def total(self) -> int:
        """Largest memory at a time: in the passes or in the update."""
        resident = self.student + self.teacher + self.gradients + self.optimizer
        passes = self.activations + self.buffers + self.communication
        return resident + max(passes, self.update)


@dataclass(frozen=True)
class TrainingMemory:
    """Memory of a training that does not depend on its layout.

    Attributes:
        scheme: prepared scheme.
        optimizer: memory of its optimizers.
        uses_foreach: whether an optimizer updates all weights in one call, as on a GPU.
        dtype: type of computations.
    """

    scheme: Scheme
    optimizer: OptimizerMemory
    uses_foreach: bool
    dtype: torch.dtype = torch.float32

    def of_rank(self, layout: Layout, step: StepMemory) -> RankMemory:
        """Forecast the memory of the process with the largest shards.

        Args:
            layout: distribution over processes, whose teachers are offloaded.
            step: memory of a micro-batch of that layout.
        """
        group = layout.group
        dtypes = gathered_dtypes(self.scheme, self.dtype)
        units = units_of(self.scheme, dtypes)
        teachers = teacher_parameters(self.scheme)
        on_cpu = offloaded_parameters(self.scheme)
        # Teachers that do not change are stored in the type of their gathered weights.
        converted = fixed_parameters(self.scheme) if layout.is_sharded else set()
        weights = {"student": 0, "teacher": 0}
        gradients = optimizer = 0
        for parameter in self.scheme.parameters():
            if parameter in on_cpu:
                continue
            side = "teacher" if parameter in teachers else "student"
            dtype = dtypes[parameter] if parameter in converted else parameter.dtype
            weights[side] += shard_bytes(parameter, group, dtype.itemsize)
            if parameter.requires_grad:
                gradients += shard_bytes(parameter, group)
                per_element = self.optimizer.states.get(parameter, 0)
                optimizer += shard_bytes(parameter, group, per_element)
        # Buffers are not sharded.
        weights["student"] += sum(buffer.nbytes for buffer in self.scheme.buffers())
        return RankMemory(
            **weights,
            gradients=gradients,
            optimizer=optimizer + self.optimizer.fixed,
            activations=step.saved,
            buffers=step.peak - step.saved,
            communication=_communication(units, teachers, layout) if layout.is_sharded else 0,
            update=self._update(layout, gradients),
        )

    def _update(self, layout: Layout, gradients: int) -> int:
        """Buffers of the update of all weights."""
        # A sharded optimizer updates one weight after the other.
        if layout.is_sharded:
            return self.optimizer.temporary // layout.group
        # The sum over replicas copies all gradients into one tensor.
        summed = gradients if layout.ranks > 1 else 0
        return max(summed, gradients if self.uses_foreach else self.optimizer.temporary)


def _communication(units: list[Unit], teachers: set[nn.Parameter], layout: Layout) -> int:
    """Bytes that FSDP2 gathers at a time, and gradients that it has not yet summed."""
    gathered = _gathered(units, teachers)
    # Gradients of all weights stay whole until the last micro-batch, in the type of their sum.
    unsummed = sum(unit.summed for unit in units) if layout.accumulate > 1 else 0
    return gathered + unsummed


def _gathered(units: list[Unit], teachers: set[nn.Parameter]) -> int:
    """Bytes that FSDP2 gathers at a time.

    The weights outside of blocks stay gathered. One block is computed while the next one is
    gathered; in the backward pass its gradients exist as they are and as a copy to be summed.
    """
    roots = [unit for unit in units if unit.is_root]
    blocks = [unit for unit in units if not unit.is_root]
    of_teachers = [unit for unit in blocks if not teachers.isdisjoint(unit.parameters)]
    of_student = [unit for unit in blocks if teachers.isdisjoint(unit.parameters)]
    teacher_block = max((unit.size for unit in of_teachers), default=0)
    block = max((unit.size for unit in of_student), default=0)
    block_gradients = max((unit.gradients + unit.summed for unit in of_student), default=0)
    root_summed = sum(unit.summed for unit in roots)
    backward = sum(unit.gradients for unit in roots)
    backward += max(2 * block + block_gradients, root_summed)
    return sum(unit.size for unit in roots) + max(2 * teacher_block, backward)
