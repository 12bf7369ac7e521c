"""Differentiable communication between processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from instil.core import Objectives, Scheme
from instil.engine.processes import rank, world_size


class _GatherRows(torch.autograd.Function):
    """Rows of all processes in order; backward sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = [
            torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())
        ]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        ctx.lengths = [int(length) for length in lengths]
        # all_gather needs equal shapes.
        padded = rows.new_zeros((max(ctx.lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.zeros_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return torch.split(total, ctx.lengths)[rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes in global order, differentiable.

    Args:
        rows: (n, ...), with any n in each process.
    """
    if world_size() == 1:
        return rows
    # The back ends cannot gather booleans.
    if rows.dtype == torch.bool:
        return gather_rows(rows.byte()).bool()
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def set_gather(scheme: Scheme) -> None:
    """Let objectives that compare samples see the rows of all processes, if there are several.

    Args:
        scheme: scheme with its objectives, which are changed.
    """
    if world_size() == 1:
        return
    for part in scheme.modules():
        if isinstance(part, Objectives):
            part.gather = gather_rows


class _SumOverRanks(torch.autograd.Function):
    """Sum over processes. The derivative is the same sum, so it is differentiable twice."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total: Tensor = _SumOverRanks.apply(grads[0])
        return total


def differentiable_sum(values: Tensor) -> Tensor:
    """Sum a tensor over processes, differentiable twice."""
    total: Tensor = _SumOverRanks.apply(values)
    return total
