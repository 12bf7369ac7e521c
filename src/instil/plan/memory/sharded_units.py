"""Sizes of the weights of a scheme, whole and as FSDP2 shards them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from instil.core import Objectives, Scheme, Teacher
from instil.engine.blocks import repeated_blocks


@dataclass(frozen=True)
class Unit:
    """Weights that FSDP2 gathers together.

    Attributes:
        parameters: the weights.
        is_root: whether they stay gathered from the forward pass to the end of the step.
    """

    parameters: list[nn.Parameter]
    is_root: bool

    @cached_property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(parameter.nbytes for parameter in self.parameters)

    @cached_property
    def gradient_size(self) -> int:
        """Bytes of the gradients of all weights."""
        return sum(p.nbytes for p in self.parameters if p.requires_grad)


def shard_bytes(tensor: Tensor, group: int, element_size: int | None = None) -> int:
    """Bytes of the largest part of a tensor that is split along its first dimension.

    Args:
        tensor: the whole tensor.
        group: number of processes that share it.
        element_size: bytes of an element. None: those of the tensor.

    Example:
        >>> import torch
        >>> shard_bytes(torch.zeros(5, 3), 2)
        36
    """
    width = tensor.element_size() if element_size is None else element_size
    if tensor.ndim == 0:
        return width
    rows = -(-tensor.shape[0] // group)
    return rows * tensor[0].numel() * width if len(tensor) else 0


def units_of(scheme: Scheme) -> list[Unit]:
    """Split the weights of a scheme as ``engine.sharding.shard`` does.

    Args:
        scheme: prepared scheme.
    """
    units: list[Unit] = []
    for child in scheme.children():
        units += _units(child)
    return units


def _units(module: nn.Module) -> Iterator[Unit]:
    if type(module) is nn.ModuleList:
        for child in module:
            yield from _units(child)
        return
    in_blocks: set[nn.Parameter] = set()
    for block in () if isinstance(module, Objectives) else repeated_blocks(module):
        parameters = [p for p in block.parameters() if p not in in_blocks]
        in_blocks.update(parameters)
        yield Unit(parameters, is_root=False)
    yield Unit([p for p in module.parameters() if p not in in_blocks], is_root=True)


def teacher_parameters(scheme: Scheme) -> set[nn.Parameter]:
    """Weights of all teachers of a scheme.

    Args:
        scheme: prepared scheme.
    """
    parameters: set[nn.Parameter] = set()
    for part in scheme.modules():
        if isinstance(part, Teacher):
            parameters.update(part.parameters())
    return parameters


def largest(units: Iterable[Unit]) -> tuple[int, int]:
    """Bytes of weights and of gradients of the largest units that are not roots.

    Args:
        units: units of one or several networks.
    """
    blocks = [unit for unit in units if not unit.is_root]
    size = max((unit.size for unit in blocks), default=0)
    return size, max((unit.gradient_size for unit in blocks), default=0)
