"""Rank correlation of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.feature_maps import require_dims


def non_target_rank_correlation(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor
) -> Tensor:
    """Kendall rank correlation (tau a) of the logits of all classes but the target.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        target: class indices (N,).

    Returns:
        (N,) in [-1, 1], without a gradient; 1 if there are fewer than two other classes.

    Example:
        >>> student = torch.tensor([[9.0, 3.0, 2.0, 1.0]])
        >>> teacher = torch.tensor([[9.0, 3.0, 1.0, 2.0]])
        >>> non_target_rank_correlation(student, teacher, torch.tensor([0]))
        tensor([0.3333])
    """
    require_dims(student_logits, 2, "student_logits")
    num_classes = student_logits.shape[1]
    if num_classes < 3:
        return torch.ones_like(student_logits[:, 0])
    concordant = _signs(student_logits.detach()) * _signs(teacher_logits.detach())
    is_other = torch.arange(num_classes, device=target.device) != target[:, None]
    is_counted = is_other[:, :, None] & is_other[:, None]
    num_pairs = (num_classes - 1) * (num_classes - 2)
    return (concordant * is_counted).sum((1, 2)) / num_pairs


def _signs(logits: Tensor) -> Tensor:
    """Sign of each difference of two classes: (N, C, C)."""
    return (logits[:, :, None] - logits[:, None]).sign()
