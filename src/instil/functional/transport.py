"""Entropy-regularized optimal transport, by Sinkhorn's scaling in logarithms."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn_cost(
    student: Tensor,
    teacher: Tensor,
    cost: Tensor,
    regularization: float = 0.05,
    iterations: int = 10,
) -> Tensor:
    """Cost of moving a distribution onto another along the entropy-regularized plan after some Sinkhorn iterations: (...).

    Log-probabilities (..., C), minus infinity where there is no class. The scalings are kept as logarithms; the kernel exp(-cost / regularization),
    which all items share, is never expanded to them. A ``regularization`` of 0.02 or more, for costs in [0, 1], keeps it in the range of float32.
    """
    kernel = (-cost.clamp_min(0) / regularization).exp()
    columns = sinkhorn_column_scale(student, teacher, kernel, iterations)
    price = (
        columns @ (kernel * cost).mT / (columns @ kernel.mT).clamp_min(torch.finfo(cost.dtype).tiny)
    )  # of a unit of each class of the student
    return (student.exp() * price).sum(-1)


def uniform_transport_plan(
    cost: Tensor, regularization: float = 0.1, iterations: int = 50
) -> Tensor:
    """How much of each of M rows goes to each of K columns, all rows and all columns being equal, as ``sinkhorn_cost`` moves it: (M, K), sums to 1.

    Costs (M, K); their range over ``regularization`` at most 80 keeps the kernel in the range of float32.
    """
    rows, columns = (cost.new_full((number,), -math.log(max(number, 1))) for number in cost.shape)
    kernel = (-cost / regularization).exp()
    moved = kernel * sinkhorn_column_scale(rows, columns, kernel, iterations)
    return moved / (moved.sum(1, keepdim=True) * len(cost)).clamp_min(torch.finfo(cost.dtype).tiny)


def sinkhorn_column_scale(rows: Tensor, columns: Tensor, kernel: Tensor, iterations: int) -> Tensor:
    """The factors (..., K), the largest 1, of the kernel's columns after some Sinkhorn iterations, for log-probabilities (..., M) and (..., K)."""
    tiny = torch.finfo(kernel.dtype).tiny

    def gathered(log_scale: Tensor, kernel: Tensor) -> Tensor:
        top = log_scale.detach().amax(-1, keepdim=True)
        return ((log_scale - top).exp() @ kernel).clamp_min(tiny).log() + top

    log_rows = torch.where(rows == -torch.inf, -torch.inf, torch.zeros_like(rows))
    for step in range(iterations):
        log_columns = columns - gathered(log_rows, kernel)
        if step < iterations - 1:
            log_rows = rows - gathered(log_columns, kernel.mT)
    return (log_columns - log_columns.detach().amax(-1, keepdim=True)).exp()
