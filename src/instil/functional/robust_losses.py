"""Losses of attacked images, whose gradients reach both networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def soft_label_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL divergence from the teacher's to the student's softmax, times ``temperature ** 2``.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C). Unlike in ``kd_loss``, gradients reach both.
        temperature: softmax temperature, > 0.

    Returns:
        One value per sample (N,).

    Example:
        >>> import torch
        >>> soft_label_loss(torch.zeros(1, 3), torch.eye(3)[:1])
        tensor([0.1233])
    """
    # Not kd_loss: an attack needs the gradient of both sides, and its bits are those of F.kl_div.
    student_log_probs = (to_float32(student_logits) / temperature).log_softmax(-1)
    teacher_log_probs = (to_float32(teacher_logits) / temperature).log_softmax(-1)
    values = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    return values.sum(-1) * temperature**2


def label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample.

    Args:
        logits: (N, C).
        target: class indices (N,).

    Returns:
        One value per sample (N,).

    Example:
        >>> import torch
        >>> label_loss(torch.eye(3)[:1], torch.tensor([0]))
        tensor([0.5514])
    """
    return F.cross_entropy(to_float32(logits), target, reduction="none")
