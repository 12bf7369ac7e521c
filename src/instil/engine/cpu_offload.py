"""CPU offload: networks whose blocks are on the device only for their own forward pass.

The class of each repeated block is replaced, as in ``engine.activation_checkpointing``: its
parameters, hooks and name stay, ``to(device)`` leaves its weights where they are, and a copy of the
block is offloaded too.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from instil.core import Batch, Net, Scheme, Teacher
from instil.engine.blocks import parts_of_scheme, repeated_blocks
from instil.engine.processes import broadcast_tensors, world_size

log = logging.getLogger("instil")


class Offloaded(nn.Module):
    """Mixin whose weights have a copy on the compute device during a forward pass only.

    With gradients enabled, the pass keeps its inputs only and is computed again in the backward
    pass. The gradient of the input then needs the weights of one block at a time too.
    """

    compute_device = torch.device("cpu")
    """Device of inputs and outputs, which ``to`` sets."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **named: Any) -> Any:
        run = functools.partial(self._run, super().forward)
        if not torch.is_grad_enabled():
            return run(*args, **named)
        if any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(
                "teacher.cpu_offload: the weights of this teacher, or of a network that starts "
                "from them, are trained. Expected a teacher that does not change. Leave "
                "cpu_offload out"
            )
        return checkpoint(run, *args, use_reentrant=False, **named)

    def _run(self, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        homes = {parameter: parameter.data for parameter in self.parameters()}
        try:
            for parameter, home in homes.items():
                parameter.data = home.to(self.compute_device, non_blocking=True, copy=True)
            return forward(*args, **named)
        finally:
            _restore(homes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Offloaded:
        """Apply a function of ``to`` to buffers; of weights it changes the type only."""
        self.compute_device = fn(torch.empty(0, device=self.compute_device)).device

        def keep_device(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                return fn(tensor)
            dtype = fn(torch.empty(0, dtype=tensor.dtype, device=self.compute_device)).dtype
            return _pinned(tensor.to(dtype), self.compute_device)

        super()._apply(keep_device, recurse)  # type: ignore[no-untyped-call]
        return self


def offload_blocks(network: nn.Module) -> list[nn.Module]:
    """Keep the weights of the repeated blocks of a network where they are, in place.

    ``network.to(device)`` then moves all but these weights. Outputs, and gradients with respect to
    inputs, are the same as without offload.

    Args:
        network: network whose weights are not trained.

    Returns:
        The blocks, without those that were offloaded before.
    """
    blocks = [block for block in repeated_blocks(network) if not isinstance(block, Offloaded)]
    blocks = [block for block in dict.fromkeys(blocks) if any(True for _ in block.parameters())]
    for block in blocks:
        _offload(block)
    return blocks


def offloaded_blocks(module: nn.Module) -> list[Offloaded]:
    """Return the offloaded blocks of a module.

    Args:
        module: network, or a module with networks.
    """
    return [part for part in module.modules() if isinstance(part, Offloaded)]


def undo_offload(blocks: Iterable[nn.Module]) -> None:
    """Undo ``offload_blocks``; the weights stay where they are.

    Args:
        blocks: offloaded blocks.
    """
    for block in blocks:
        block.__class__ = type(block).__bases__[1]
        block.__dict__.pop("compute_device", None)


@contextlib.contextmanager
def without_offload(network: nn.Module) -> Iterator[None]:
    """Context in which a network on the CPU reads its weights where they are.

    Args:
        network: network, with or without offloaded blocks.
    """
    blocks = offloaded_blocks(network)
    undo_offload(blocks)
    try:
        yield
    finally:
        for block in blocks:
            _offload(block)


def offloaded_parameters(module: nn.Module) -> set[nn.Parameter]:
    """Return the weights that only offloaded blocks of a module have.

    Args:
        module: network, or a module with networks.
    """
    weights: set[nn.Parameter] = set()
    in_blocks: set[nn.Module] = set()
    for block in offloaded_blocks(module):
        weights.update(block.parameters())
        in_blocks.update(block.modules())
    for part in module.modules():
        if part not in in_blocks:
            weights.difference_update(part.parameters(recurse=False))
    return weights


def device_of(module: nn.Module) -> torch.device:
    """Return the device that a network computes on.

    Args:
        module: network; one without parameters computes on the CPU.
    """
    for block in offloaded_blocks(module):
        return block.compute_device
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def broadcast_state(module: nn.Module) -> None:
    """Overwrite parameters and buffers with those of the first process.

    Args:
        module: module on its device, with or without offloaded blocks.
    """
    if world_size() == 1:
        return
    fetched = offloaded_parameters(module)
    resident = [parameter for parameter in module.parameters() if parameter not in fetched]
    broadcast_tensors([*resident, *module.buffers()])
    for block in offloaded_blocks(module):
        for parameter in block.parameters():
            # Processes communicate on the device; a block fits there.
            received = parameter.data.to(block.compute_device, copy=True)
            broadcast_tensors([received])
            received = received.to(parameter.device)
            # Weights may be views of a file, which a change would copy into memory.
            if not torch.equal(received, parameter.data):
                parameter.data.copy_(received)


def prepare_offloaded(scheme: Scheme, batch: Batch, device: torch.device) -> None:
    """Prepare a scheme whose networks do not fit on a device.

    Args:
        scheme: the scheme; its networks stay where they are.
        batch: dry batch on the device.
        device: device of this process.
    """
    networks: list[nn.Module] = []
    for part in parts_of_scheme(scheme):
        if isinstance(part, (Net, Teacher)):
            networks.append(part)
        else:
            part.to(device)
    with offloaded(networks, device):
        scheme.prepare(batch)


@contextlib.contextmanager
def offloaded(networks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Context in which networks compute on a device and keep the weights of blocks elsewhere.

    All other weights have a copy on the device for the whole context, because outputs may be
    computed from them after a pass. The context is for passes without gradients of weights.

    Args:
        networks: networks, whose weights have their present device again at the end.
        device: device of buffers, inputs and outputs.
    """
    homes: dict[nn.Parameter, Tensor] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, homes)
        for network in networks:
            stack.callback(undo_offload, offload_blocks(network))
            for block in offloaded_blocks(network):
                block.compute_device = device
            for buffer in network.buffers():
                buffer.data = buffer.data.to(device)
            for parameter in set(network.parameters()) - offloaded_parameters(network):
                if parameter not in homes:
                    homes[parameter] = parameter.data
                    parameter.data = parameter.data.to(device, copy=True)
        yield


def _offload(block: nn.Module) -> None:
    kind = type(block)
    block.__class__ = type(kind.__name__, (Offloaded, kind), {})


def _restore(homes: dict[nn.Parameter, Tensor]) -> None:
    for parameter, home in homes.items():
        parameter.data = home


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Weights in page-locked memory, from which a GPU copies faster, if this process is alone.

    Several processes of a machine share the pages of a file of weights instead.
    """
    is_alone = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) == 1
    if device.type != "cuda" or tensor.device.type != "cpu" or not is_alone or tensor.is_pinned():
        return tensor
    try:
        return tensor.pin_memory()
    except RuntimeError as error:
        log.warning("teacher.cpu_offload: weights are copied from pageable memory (%s)", error)
        return tensor
