"""Updates of a scheme: devices, precision, processes, sharding and exact gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import instil.engine.activation_checkpointing as checkpointing
import instil.engine.batch_norm as batch_norm
import instil.engine.learners as learners
import instil.engine.processes as processes
import instil.engine.sharding as sharding
from instil.core import Batch, Scheme, Update
from instil.engine.checkpoint_writer import CheckpointWriter
from instil.engine.devices import autocast_to, dtype_of
from instil.engine.differentiable import gather_rows, set_gather
from instil.engine.loss_weights import loss_weights
from instil.engine.offloaded_preparation import broadcast_state, prepare_offloaded
from instil.engine.optimization import Optimization, Options
from instil.engine.sharded_checkpoints import restore_checkpoint
from instil.engine.state import fixed_teachers, moving_buffers, random_state, set_random_state
from instil.items import to_device


class Engine:
    """Runs the updates of one scheme. The result does not depend on how the batch is split.

    Args:
        device: torch device, or ``auto``.
        precision: ``float32``, or ``bfloat16`` for passes under autocast and gathered weights.
        shard: whether to shard weights, gradients and optimizer states over processes.
        clip: maximum norm of a learner's gradient; None: no clipping.
        sync_batch_norm: whether BatchNorm layers use the statistics of the global batch.
        activation_checkpointing: whether to compute blocks again in the backward pass.
        shard_group: number of processes that share one copy of the weights; None: all.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "float32",
        shard: bool = False,
        clip: float | None = None,
        sync_batch_norm: bool = True,
        activation_checkpointing: bool = False,
        shard_group: int | None = None,
    ):
        self.device = processes.init_distributed(device)
        self.dtype = dtype_of(precision)
        self.clip = clip
        self.shard = shard and processes.world_size() > 1
        self.shard_group = shard_group
        self.sync_batch_norm = sync_batch_norm and processes.world_size() > 1
        self.activation_checkpointing = activation_checkpointing
        self.nets: dict[str, list[nn.Parameter]] = {}
        self.parameters: dict[str, list[nn.Parameter]] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.modules: dict[str, list[nn.Module]] = {}
        self._grads_stale = False
        self._blueprint: sharding.Blueprint | None = None
        self.writer = CheckpointWriter(self.shard)
        self.generators: list[torch.Generator] = []  # further random states, such as the loader's

    def prepare(self, scheme: Scheme, batch: Batch) -> None:
        """Prepare a scheme on the device, where networks to be sharded have a block at a time."""
        batch = self.move(batch)
        if self.shard and self.device.type != "cpu":
            prepare_offloaded(scheme, batch, self.device)
        else:
            scheme.to(self.device).prepare(batch)

    def setup(self, scheme: Scheme, optimizations: Callable[[str], Optimization]) -> None:
        """Move, replicate or shard a prepared scheme, and create the optimizers of its learners.

        Args:
            scheme: prepared scheme, whose learners partition its trainable parameters.
            optimizations: learner -> its optimization.

        Raises:
            ValueError: if they do not, or the scheme cannot be sharded.
        """
        if not self.shard:
            scheme.to(self.device)
            # Random initial weights must be equal before each process keeps its own copy.
            broadcast_state(scheme)
        set_gather(scheme)
        if self.shard:
            sharding.check_shardable(scheme, map(optimizations, scheme.learners))
            self._blueprint = sharding.Blueprint(scheme)
        # Before sharding, which replaces the class of a module too.
        if self.sync_batch_norm:
            batch_norm.synchronize_batch_norm(scheme)
        if self.activation_checkpointing:
            checkpointing.checkpoint_learners(scheme)
        if self.shard:
            sharding.shard(scheme, self.device, self.shard_group, self.dtype)
        # Optimizers come last: sharding replaces the parameters.
        for name, learner in learners.create_learners(scheme, optimizations).items():
            self.modules[name] = learner.modules
            self.nets[name] = learner.nets
            self.parameters[name] = learner.parameters
            self.optimizers[name] = learner.optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        return autocast_to(self.device, self.dtype)

    def move(self, batch: Batch) -> Batch:
        """Move the tensors of a batch to the device of this process."""
        return to_device(batch, self.device)

    def loss_weights(self, counts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Compute the weight of each micro-batch, see ``engine.loss_weights``."""
        return loss_weights(counts, processes.sum_over_ranks)

    def backward(self, update: Update, share: dict[str, Tensor], last: bool) -> None:
        """Add the gradients of one micro-batch.

        Args:
            update: losses of the micro-batch.
            share: loss -> weight of the micro-batch in this update.
            last: whether it is the last micro-batch of the step.
        """
        if self._grads_stale:
            # Only now: freed at the end of a step, their memory would be allocated again for the
            # next step's forward pass.
            self.clear()
        if self.shard:
            for modules in self.modules.values():
                sharding.set_gradient_sync(iter(modules), last)
        loss = torch.stack([value * share[name] for name, value in update.losses.items()]).sum()
        # FSDP averages over ranks, but the weights of all ranks sum to 1.
        loss = loss * processes.world_size() if self.shard else loss
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learner: str | tuple[str, ...]) -> None:
        """Run one optimizer step on the gradients since the last update.

        Args:
            learner: name of the learner, or names of several learners.

        Raises:
            RuntimeError: if no parameter of a learner has a gradient.
        """
        for name in (learner,) if isinstance(learner, str) else learner:
            parameters = self.parameters[name]
            if processes.world_size() > 1 and not self.shard:
                processes.sum_gradients(parameters)
            if all(parameter.grad is None for parameter in parameters):
                raise RuntimeError(
                    f"no gradient reached learner '{name}': its losses do not depend on its "
                    "parameters"
                )
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.nets[name], self.clip)
            self.optimizers[name].step()
        self._grads_stale = True

    def clear(self) -> None:
        """Clear the gradients of all learners, since a loss also reaches other learners."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self._grads_stale = False

    def finish_step(self, scheme: Scheme, state_updates: dict[str, list[Tensor]]) -> None:
        """Pass the rows of all micro-batches of all ranks, in global order, to ``after_step``.

        Args:
            scheme: scheme of ``setup``.
            state_updates: rows of each micro-batch by name.
        """
        if self.shard:
            sharding.reshard(scheme)
        with torch.no_grad():
            scheme.after_step(
                {key: gather_rows(torch.cat(rows)) for key, rows in state_updates.items()}
            )

    def sync_buffers(self, scheme: Scheme) -> None:
        """Average the buffers of learners and of teachers that change over ranks."""
        processes.average_over_ranks(moving_buffers(scheme))

    def release(self, scheme: Scheme) -> Scheme:
        """Undo the changes of ``setup`` to a scheme. Call it on every rank.

        Args:
            scheme: trained scheme.

        Returns:
            The scheme with plain modules; of a sharded one a copy without its fixed teachers.
        """
        self.clear()
        self.writer.finish()
        batch_norm.restore_batch_norm(scheme)
        checkpointing.keep_activations(scheme)
        if self._blueprint is None:
            return scheme
        return self._blueprint.fill(scheme, fixed_teachers(scheme), self.device)

    def set_learning_rates(self, rate: Callable[[float], float]) -> None:
        """Set each learning rate to ``rate`` of its initial value."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate(group["initial_lr"])

    def random_state(self) -> dict[str, Any]:
        """Return the random states of this process: torch, Python and ``generators``."""
        return random_state(self.generators)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Set the result of ``random_state``."""
        set_random_state(state, self.generators)

    def save(
        self, scheme: Scheme, path: Path, extra: Options, own: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint completely or not at all. Call it on every rank.

        Args:
            scheme: scheme of ``setup``; if it is sharded, writing goes on during the next steps.
            path: its path; the checkpoint before it is kept under another name.
            extra: values that ``load`` returns on every rank.
            own: values that ``load`` returns on this rank, if the number of ranks is the same.
        """
        rank_state = {"random": self.random_state(), **(own or {})}
        self.writer.save(path, scheme, self.optimizers, rank_state, extra)

    def load(self, scheme: Scheme, path: Path) -> Options:
        """Restore a checkpoint, with any number of ranks.

        Args:
            scheme: scheme of the same structure, after ``setup``.
            path: path of ``save``.

        Returns:
            ``extra`` of ``save``, and ``own`` if the number of ranks is the same.

        Raises:
            ValueError: if the file is damaged or of another scheme.
        """
        extra, own = restore_checkpoint(path, scheme, self.optimizers, self.device)
        if "random" in own:
            self.set_random_state(own.pop("random"))
        return extra | own
