"""Sizes of the weights of a scheme, whole and as FSDP2 shards them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instil.core import Objectives, Scheme, Teacher
from instil.engine.blocks import parts_of_scheme, repeated_blocks


@dataclass(frozen=True)
class Unit:
    """Bytes of weights that FSDP2 gathers together.

    Attributes:
        parameters: the weights.
        is_root: whether they stay gathered from the forward pass to the end of the step.
        size: gathered weights.
        gradients: gradients of the gathered weights.
        summed: copy of these gradients that is summed over processes.
    """

    parameters: list[nn.Parameter]
    is_root: bool
    size: int
    gradients: int
    summed: int


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


def units_of(scheme: Scheme, dtypes: Mapping[nn.Parameter, torch.dtype]) -> list[Unit]:
    """Split the weights of a scheme as ``engine.sharding.shard`` does.

    Args:
        scheme: prepared scheme.
        dtypes: type of each weight while it is gathered.
    """
    units: list[Unit] = []
    for child in parts_of_scheme(scheme):
        in_blocks: set[nn.Parameter] = set()
        for block in () if isinstance(child, Objectives) else repeated_blocks(child):
            parameters = [p for p in block.parameters() if p not in in_blocks]
            in_blocks.update(parameters)
            units.append(_unit(parameters, dtypes, is_root=False))
        rest = [p for p in child.parameters() if p not in in_blocks]
        units.append(_unit(rest, dtypes, is_root=True))
    return units


def _unit(
    parameters: list[nn.Parameter], dtypes: Mapping[nn.Parameter, torch.dtype], is_root: bool
) -> Unit:
    size = gradients = summed = 0
    for parameter in parameters:
        num_bytes = parameter.numel() * dtypes[parameter].itemsize
        size += num_bytes
        if parameter.requires_grad:
            gradients += num_bytes
            summed += parameter.nbytes
    return Unit(parameters, is_root, size, gradients, summed)


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
