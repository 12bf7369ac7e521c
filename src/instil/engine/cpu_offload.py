"""CPU offload: networks whose blocks are on the device only for their own forward pass.

The class of each repeated block is replaced, as in ``engine.activation_checkpointing``: its
parameters, hooks and name stay, ``to(device)`` leaves its weights where they are, and a copy of the
block is offloaded too.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from instil.engine.blocks import repeated_blocks

log = logging.getLogger("instil")


class Offloaded(nn.Module):
    """Mixin whose weights have a copy on the compute device during a forward pass only.

    A graph for the gradient of the input keeps no copies: the backward pass makes them again.
    """

    compute_device = torch.device("cpu")
    """Device of inputs and outputs, which ``to`` sets."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **named: Any) -> Any:
        homes = {parameter: parameter.data for parameter in self.parameters()}
        try:
            for parameter, home in homes.items():
                parameter.data = _fetch(home, self.compute_device)
            with self._without_copies_in_graph(homes):
                return super().forward(*args, **named)
        finally:
            restore_weights(homes)

    def _without_copies_in_graph(
        self, homes: dict[nn.Parameter, Tensor]
    ) -> AbstractContextManager[Any]:
        """Context in which autograd saves where a weight is, in place of its copy."""
        if not torch.is_grad_enabled():
            return contextlib.nullcontext()
        if any(parameter.requires_grad for parameter in homes):
            raise ValueError(
                "teacher.cpu_offload: the weights of this teacher, or of a network that starts "
                "from them, are trained. Expected a teacher that does not change. Leave "
                "cpu_offload out"
            )
        # Layers save views, such as transposed weights, which have the storage of the copy.
        home_of = {p.data.untyped_storage()._cdata: home for p, home in homes.items()}

        def pack(tensor: Tensor) -> Any:
            home = home_of.get(tensor.untyped_storage()._cdata)
            if home is None or home.dtype != tensor.dtype:
                return tensor
            return home, (tensor.size(), tensor.stride(), tensor.storage_offset())

        def unpack(saved: Any) -> Tensor:
            if isinstance(saved, Tensor):
                return saved
            home, layout = saved
            return _fetch(home, self.compute_device).as_strided(*layout)

        return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

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


def restore_weights(homes: dict[nn.Parameter, Tensor]) -> None:
    """Replace the values of parameters, which frees their copies.

    Args:
        homes: parameter -> its value.
    """
    for parameter, home in homes.items():
        parameter.data = home


def _offload(block: nn.Module) -> None:
    kind = type(block)
    block.__class__ = type(kind.__name__, (Offloaded, kind), {})


def _fetch(home: Tensor, device: torch.device) -> Tensor:
    return home.to(device, non_blocking=True, copy=True)


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
