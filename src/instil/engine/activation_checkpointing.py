"""Activation checkpointing: blocks that are computed again in the backward pass.

The class of each block is replaced during training, as in ``engine.batch_norm``: its parameters,
hooks and name stay, and a copy of the block runs with the weights of the copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from instil.core import Net, Objectives, Scheme
from instil.engine.blocks import repeated_blocks


class _Checkpointed(nn.Module):
    """Mixin whose forward pass keeps its inputs only."""

    def forward(self, *args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **named)
        outputs = checkpoint(
            super().forward,
            *args,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _SecondPass(self)),
            **named,
        )
        # Autocast would keep its copies of the weights of all blocks until the end of the pass.
        torch.clear_autocast_cache()
        return outputs


class _SecondPass:
    """Context of the second pass, in which the parts of a block have the modes of the first pass.

    Changes of buffers are undone: they would count a batch twice. The context can be entered again,
    as for a graph with two backward passes.

    Args:
        block: the block, at the start of its first pass.
    """

    def __init__(self, block: nn.Module):
        self.block = block
        # A scheme may run a network in evaluation mode within a step, and the backward pass is
        # after that.
        self.modes = {part: part.training for part in block.modules()}
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self.later_modes: dict[nn.Module, bool] = {}

    def __enter__(self) -> None:
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in self.block.buffers()]
        self.later_modes = {part: part.training for part in self.modes}
        _set_modes(self.modes)

    def __exit__(self, *error: object) -> None:
        _set_modes(self.later_modes)
        for buffer, value in self.buffers:
            # ``data``: autograd must not take this for a change of a value that it has saved.
            buffer.data.copy_(value)
        self.buffers = []


def _set_modes(modes: dict[nn.Module, bool]) -> None:
    for part, mode in modes.items():
        part.training = mode


def checkpoint_learners(scheme: Scheme) -> None:
    """Call ``checkpoint_activations`` for the modules of all learners.

    Args:
        scheme: prepared scheme.
    """
    modules: list[nn.Module] = []
    for paths in scheme.learners.values():
        modules += map(scheme.get_submodule, paths)
    checkpoint_activations(modules)


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Make the repeated blocks of networks keep their inputs only, in place.

    A pass through such a network always runs to its end.

    Args:
        modules: networks, and objectives, whose adapters are not changed.

    Raises:
        ValueError: if no module has repeated blocks.
    """
    networks = [module for module in modules if not isinstance(module, Objectives)]
    blocks: dict[int, nn.Module] = {}
    for network in networks:
        blocks |= {id(block): block for block in repeated_blocks(network)}
    if not blocks:
        raise ValueError(
            "train.activation_checkpointing: the trained networks have no repeated blocks. "
            "Expected a network with an nn.ModuleList or nn.Sequential of blocks, such as the "
            "layers of a transformer or the stages of a CNN. Set it to false"
        )
    for block in blocks.values():
        kind = type(block)
        if not issubclass(kind, _Checkpointed):
            block.__class__ = type(kind.__name__, (_Checkpointed, kind), {})
    for network in networks:
        for part in network.modules():
            if isinstance(part, Net):
                part.early_stop = False


def keep_activations(scheme: nn.Module) -> None:
    """Undo ``checkpoint_activations``, if it was called.

    Args:
        scheme: module with the networks.
    """
    blocks = [part for part in scheme.modules() if isinstance(part, _Checkpointed)]
    for block in blocks:
        block.__class__ = type(block).__bases__[1]
    for part in scheme.modules():
        if blocks and isinstance(part, Net):
            part.early_stop = True
