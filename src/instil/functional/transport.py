"""Entropy-regularized optimal transport by Sinkhorn's algorithm in the log domain."""

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
    """Cost of the entropy-regularized transport plan between two distributions.

    All items share the kernel ``exp(-cost / regularization)``, which is never expanded to them.

    Args:
        student: log-probabilities (..., C); -inf for impossible classes.
        teacher: log-probabilities (..., C); -inf for impossible classes.
        cost: (C, C).
        regularization: factor of the entropy. For costs in [0, 1], 0.02 or more keeps the kernel in
            the range of float32.
        iterations: number of Sinkhorn iterations.

    Returns:
        (...).
    """
    kernel = (-cost.clamp_min(0) / regularization).exp()
    columns = sinkhorn_column_scale(student, teacher, kernel, iterations)
    tiny = torch.finfo(cost.dtype).tiny
    # Mean cost of moving one unit of each student class.
    price = columns @ (kernel * cost).mT / (columns @ kernel.mT).clamp_min(tiny)
    return (student.exp() * price).sum(-1)


def uniform_transport_plan(
    cost: Tensor, regularization: float = 0.1, iterations: int = 50
) -> Tensor:
    """Entropy-regularized transport plan between uniform distributions.

    Args:
        cost: (M, K). Its range divided by ``regularization`` must be at most 80, which keeps the
            kernel in the range of float32.
        regularization: factor of the entropy.
        iterations: number of Sinkhorn iterations.

    Returns:
        (M, K), with sum 1.
    """
    rows, columns = (cost.new_full((size,), -math.log(max(size, 1))) for size in cost.shape)
    kernel = (-cost / regularization).exp()
    plan = kernel * sinkhorn_column_scale(rows, columns, kernel, iterations)
    total = (plan.sum(1, keepdim=True) * len(cost)).clamp_min(torch.finfo(cost.dtype).tiny)
    return plan / total


def sinkhorn_column_scale(rows: Tensor, columns: Tensor, kernel: Tensor, iterations: int) -> Tensor:
    """Column factors of the kernel after some Sinkhorn iterations.

    Args:
        rows: log-probabilities (..., M).
        columns: log-probabilities (..., K).
        kernel: (M, K).
        iterations: number of iterations.

    Returns:
        (..., K), scaled so that the largest factor is 1.
    """
    tiny = torch.finfo(kernel.dtype).tiny

    def log_matmul_exp(log_scale: Tensor, kernel: Tensor) -> Tensor:
        top = log_scale.detach().amax(-1, keepdim=True)
        return ((log_scale - top).exp() @ kernel).clamp_min(tiny).log() + top

    log_rows = torch.where(rows == -torch.inf, -torch.inf, torch.zeros_like(rows))
    for step in range(iterations):
        log_columns = columns - log_matmul_exp(log_rows, kernel)
        if step < iterations - 1:
            log_rows = rows - log_matmul_exp(log_columns, kernel.mT)
    return (log_columns - log_columns.detach().amax(-1, keepdim=True)).exp()
