"""Preparation of schemes with networks that do not fit on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Scheme, Teacher
from instil.engine.blocks import parts_of_scheme
from instil.engine.cpu_offload import (
    offload_blocks,
    offloaded_blocks,
    offloaded_parameters,
    restore_weights,
    undo_offload,
)
from instil.engine.processes import broadcast_tensors, world_size


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
        stack.callback(restore_weights, homes)
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
