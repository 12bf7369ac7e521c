"""Networks whose weights are on a device only while it computes with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Scheme, Teacher
from instil.engine.blocks import parts_of_scheme, repeated_blocks


def prepare_parked(scheme: Scheme, batch: Batch, device: torch.device) -> None:
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
    with parked(networks, device):
        scheme.prepare(batch)


@contextlib.contextmanager
def parked(networks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Context in which networks compute on a device and keep the weights of blocks elsewhere.

    Each repeated block is copied to the device for its own forward pass. All other weights have a
    copy there for the whole context, because outputs may be computed from them after a pass. The
    context is for passes without gradients of weights.

    Args:
        networks: networks, whose weights have their present device again at the end.
        device: device of buffers, inputs and outputs.
    """
    homes: dict[nn.Parameter, Tensor] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, homes)
        for network in networks:
            for buffer in network.buffers():
                buffer.data = buffer.data.to(device)
            in_blocks: set[nn.Parameter] = set()
            for block in dict.fromkeys(repeated_blocks(network)):
                in_blocks.update(block.parameters())
                _park(block, homes, device, stack)
            _fetch((p for p in network.parameters() if p not in in_blocks), homes, device)
        yield


def _park(
    block: nn.Module,
    homes: dict[nn.Parameter, Tensor],
    device: torch.device,
    stack: contextlib.ExitStack,
) -> None:
    """Register the hooks that copy the weights of a block before its pass and free them after."""

    def fetch(module: nn.Module, _inputs: Any) -> None:
        _fetch(module.parameters(), homes, device)

    def free(module: nn.Module, _inputs: Any, _output: Any) -> None:
        _restore({p: homes.pop(p) for p in module.parameters() if p in homes})

    stack.callback(block.register_forward_pre_hook(fetch).remove)
    stack.callback(block.register_forward_hook(free, always_call=True).remove)


def _fetch(
    parameters: Iterable[nn.Parameter], homes: dict[nn.Parameter, Tensor], device: torch.device
) -> None:
    for parameter in parameters:
        if parameter not in homes:
            homes[parameter] = parameter.data
            parameter.data = parameter.data.to(device, copy=True)


def _restore(homes: dict[nn.Parameter, Tensor]) -> None:
    for parameter, home in homes.items():
        parameter.data = home
