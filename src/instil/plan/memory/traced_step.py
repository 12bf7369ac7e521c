"""Memory of the activations of a training step."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from instil.core import Batch, Scheme
from instil.engine import Engine
from instil.engine.activation_checkpointing import checkpoint_learners, keep_activations
from instil.engine.shard_precision import gathered_dtypes
from instil.tasks.bases.peak_memory import PeakMemory


@dataclass(frozen=True)
class StepMemory:
    """Memory of one micro-batch, in bytes, without weights and their gradients.

    Attributes:
        saved: tensors that the forward pass saves for the backward pass.
        peak: largest number of bytes that exist at a time: saved tensors, blocks that are computed
            again, and buffers of losses, of gradients of activations and of the teacher.
    """

    saved: int
    peak: int


@contextlib.contextmanager
def gathered_weights(scheme: Scheme, dtype: torch.dtype) -> Iterator[None]:
    """Give the weights of a scheme the types that they have while FSDP2 gathers them.

    Args:
        scheme: prepared scheme; its tensors need no values.
        dtype: type of computations.
    """
    stored = {parameter: parameter.data for parameter in scheme.parameters()}
    try:
        for parameter, gathered in gathered_dtypes(scheme, dtype).items():
            parameter.data = parameter.data.to(gathered)
        yield
    finally:
        for parameter, data in stored.items():
            parameter.data = data


@contextlib.contextmanager
def peak_without_gradients(scheme: Scheme) -> Iterator[PeakMemory]:
    """Measure the peak of new tensors, without the gradients of weights.

    A forecast counts gradients by themselves, because a training shards them.

    Args:
        scheme: prepared scheme.
    """
    live = PeakMemory()
    hooks = [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda p: live.exclude(p.grad)
        )
        for parameter in scheme.parameters()
        if parameter.requires_grad
    ]
    try:
        with live:
            yield live
    finally:
        for hook in hooks:
            hook.remove()


def trace_step(scheme: Scheme, batch: Batch, precision: str, is_checkpointed: bool) -> StepMemory:
    """Run forward and backward passes of one step, without an update, and count their tensors.

    Args:
        scheme: prepared scheme; its tensors need no values. The gradients are deleted again.
        batch: a micro-batch, with its clock.
        precision: ``float32`` or ``bfloat16``.
        is_checkpointed: whether the blocks of the learners keep only their inputs.

    Raises:
        ValueError: if activation checkpointing finds no blocks.
    """
    engine = Engine("cpu", precision)
    if is_checkpointed:
        checkpoint_learners(scheme)
    scheme.train()
    try:
        with peak_without_gradients(scheme) as live, warnings.catch_warnings():
            # Fake tensors copy the description of a real one, and read this attribute for it.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            saved = saved_bytes_of_step(engine, scheme, batch)
    finally:
        if is_checkpointed:
            keep_activations(scheme)
    return StepMemory(saved, live.peak)


def saved_bytes_of_step(engine: Engine, scheme: Scheme, batch: Batch) -> int:
    """Return the largest number of bytes that a forward pass of a step saves for its backward pass.

    All updates of the step run without the optimizers. Weights that are saved are not counted.

    Args:
        engine: engine of the training; without ``setup`` if the tensors have no values.
        scheme: prepared scheme in train mode. The gradients are deleted again.
        batch: a micro-batch, with its clock.
    """
    try:
        return max(_saved_bytes_of_passes(engine, scheme, batch), default=0)
    finally:
        for parameter in scheme.parameters():
            parameter.grad = None


def _saved_bytes_of_passes(engine: Engine, scheme: Scheme, batch: Batch) -> Iterator[int]:
    """Run the updates of a step; yield the bytes that each forward pass saves."""
    weights = {parameter.untyped_storage()._cdata for parameter in scheme.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with engine.autocast():
        batch = scheme.before_step(batch)
    weights_of_losses = engine.loss_weights([scheme.counts(batch)])[0]
    shares = {name: weight[0] for name, weight in weights_of_losses.items()}
    updates = scheme.step(batch)
    while True:
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, engine.autocast():
            update = next(updates, None)
        if update is None:
            return
        yield sum(sizes.values())
        sizes.clear()
        engine.backward(update, {name: shares[name] for name in update.losses}, last=True)
        # Before the next forward pass, which the graph would outlive.
        del update
