"""Runs the updates of a scheme: devices, precision, processes, sharding and exact gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import instil.engine.batch_norm as batch_norm
import instil.engine.checkpoints as checkpoints
import instil.engine.learners as learners
import instil.engine.processes as processes
import instil.engine.sharding as sharding
from instil.core import Batch, Objectives, Scheme, Update
from instil.engine.optimization import Optimization, Options


class Engine:
    """Runs the updates of one scheme so that the result does not depend on how the batch was cut.

    Args:
        device: a torch device, or ``auto``.
        precision: ``float32``, or ``bfloat16`` for forward passes under autocast.
        shard: spread weights, gradients and optimizer states over processes.
        clip: largest norm of a learner's gradient.
        sync_batch_norm: BatchNorm layers use the statistics of the global batch, over processes.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "float32",
        shard: bool = False,
        clip: float | None = None,
        sync_batch_norm: bool = True,
    ):
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is float32 or bfloat16, not '{precision}'")
        self.device = processes.init_distributed(device)
        self.precision, self.clip = precision, clip
        self.shard = shard and processes.world_size() > 1
        self.sync_batch_norm = sync_batch_norm and processes.world_size() > 1
        self.nets: dict[str, list[nn.Parameter]] = {}
        self.parameters: dict[str, list[nn.Parameter]] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.modules: dict[str, list[nn.Module]] = {}
        self._gradients_are_old = False
        self._blueprint: sharding.Blueprint | None = None
        # Further random states that a checkpoint holds, such as the loader's.
        self.generators: list[torch.Generator] = []

    def setup(self, scheme: Scheme, optimizations: Callable[[str], Optimization]) -> None:
        """Move, replicate or shard a prepared scheme and make the optimizers of its learners.

        Args:
            scheme: its learners must partition its trainable parameters.
            optimizations: the optimization of each learner.

        Raises:
            ValueError: if they do not, or the scheme cannot be sharded.
        """
        scheme.to(self.device)
        processes.broadcast_tensors([*scheme.parameters(), *scheme.buffers()])
        if processes.world_size() > 1:
            for part in scheme.modules():
                if isinstance(part, Objectives):
                    part.gather = processes.gather_rows
        if self.shard:
            sharding.check_shardable(scheme)
            self._blueprint = sharding.Blueprint(scheme)
        if self.sync_batch_norm:
            batch_norm.synchronize_batch_norm(scheme)
        if self.shard:
            sharding.shard(scheme, self.device)
        owner: dict[nn.Parameter, str] = {}
        for name, paths in scheme.learners.items():
            self.modules[name] = [scheme.get_submodule(path) for path in paths]
            learner = learners.create_learner(name, paths, scheme, optimizations(name), owner)
            self.nets[name], self.parameters[name] = learner.nets, learner.parameters
            self.optimizers[name] = learner.optimizer
        learners.check_owners(scheme, owner)

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes run inside this."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def move(self, batch: Batch) -> Batch:
        """The batch on this engine's device."""
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def loss_weights(self, counts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The part of each micro-batch in the mean over all micro-batches of all ranks, loss by loss, update by update."""
        if not counts[0]:
            return [{} for _ in counts]
        sizes = [count.numel() for count in counts[0].values()]
        local = torch.stack(
            [
                torch.cat([count.reshape(-1).float() for count in count_of.values()])
                for count_of in counts
            ]
        )
        total = self.sum_over_ranks(local.sum(0))
        return [
            dict(zip(counts[0], row.split(sizes), strict=True))
            for row in torch.where(total > 0, local / total, 0)
        ]

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        return processes.sum_over_ranks(values)

    def all_reduce_max(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return processes.max_over_ranks(number, self.device)

    def backward(self, update: Update, share: dict[str, Tensor], last: bool) -> None:
        """Add the gradients of this micro-batch's part of the losses."""
        if self._gradients_are_old:
            # Only now: freed at the end of a step, their memory would be allocated again for the
            # next step's forward pass.
            self.clear()
        if self.shard:
            every = (module for modules in self.modules.values() for module in modules)
            sharding.set_gradient_sync(every, last)
        loss = torch.stack([value * share[name] for name, value in update.losses.items()]).sum()
        # FSDP averages over ranks, but a share asks for the sum.
        loss = loss * processes.world_size() if self.shard else loss
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learner: str | tuple[str, ...]) -> None:
        """One optimizer step of the learner (or learners) on the gradients added since the update before."""
        for name in (learner,) if isinstance(learner, str) else learner:
            parameters = self.parameters[name]
            if processes.world_size() > 1 and not self.shard:
                processes.sum_gradients(parameters)
            if all(parameter.grad is None for parameter in parameters):
                raise RuntimeError(
                    f"no gradient reached learner '{name}': its losses do not depend on its parameters"
                )
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.nets[name], self.clip)
            self.optimizers[name].step()
        self._gradients_are_old = True

    def clear(self) -> None:
        """Forget the gradients of the update before: this one's, and what its loss did to the weights of other learners."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self._gradients_are_old = False

    def finish_step(self, scheme: Scheme, kept: dict[str, list[Tensor]]) -> None:
        """Hand the rows of all micro-batches of all ranks, in global order, to ``after_step``."""
        if self.shard:
            sharding.reshard(scheme)
        with torch.no_grad():
            scheme.after_step(
                {key: processes.gather_rows(torch.cat(rows)) for key, rows in kept.items()}
            )

    def sync_buffers(self, scheme: Scheme) -> None:
        """Average over ranks what each moved by itself: buffers of learners and of teachers that move."""
        fixed = checkpoints.fixed_teachers(scheme)
        processes.average_over_ranks(
            [
                buffer
                for name, buffer in scheme.named_buffers()
                if buffer.is_floating_point() and not name.startswith(fixed)
            ]
        )

    def release(self, scheme: Scheme) -> Scheme:
        """Undo what ``setup`` did to the modules of a scheme; every rank takes part.

        Args:
            scheme: the trained scheme.

        Returns:
            The scheme, with plain modules on this engine's device. Of a sharded one it is a copy
            with whole weights; its fixed teachers are without values.
        """
        self.clear()
        batch_norm.restore_batch_norm(scheme)
        if self._blueprint is None:
            return scheme
        fixed = checkpoints.fixed_teachers(scheme)
        return self._blueprint.filled(scheme, fixed, self.device)

    def set_lr_factor(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its initial value."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def random_state(self) -> dict[str, Any]:
        """The random states of this process: torch's, Python's and those of ``generators``."""
        return checkpoints.random_state(self.generators)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Set what ``random_state`` returned."""
        checkpoints.set_random_state(state, self.generators)

    def save(
        self,
        scheme: Scheme,
        path: Path,
        extra: Options,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        """Write all that training changes, whole or not at all; every rank takes part, the first writes.

        Args:
            scheme: the scheme of ``setup``.
            path: the file; the checkpoint that it replaces is kept beside it.
            extra: what ``load`` returns on every rank.
            own: what ``load`` returns on this rank, if there are as many ranks as now.
        """
        mine = {"random": self.random_state(), **(own or {})}
        checkpoints.save(path, scheme, self.optimizers, mine, extra)

    def load(self, scheme: Scheme, path: Path) -> Options:
        """Restore what ``save`` wrote, under any number of ranks.

        Args:
            scheme: a scheme like the saved one, after ``setup``.
            path: the file.

        Returns:
            ``extra``, and the entries of ``own`` if there are as many ranks as there were.

        Raises:
            ValueError: if the file is damaged or of another scheme.
        """
        contents = checkpoints.read(path, self.device)
        own = checkpoints.restore(contents, path, scheme, self.optimizers)
        if own is None:
            return contents.extra
        if "random" in own:
            self.set_random_state(own.pop("random"))
        return contents.extra | own
