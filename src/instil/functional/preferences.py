"""Losses of pairs of a preferred and a rejected text."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpkd_loss(
    student_preferred: Tensor,
    student_rejected: Tensor,
    teacher_preferred: Tensor,
    teacher_rejected: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Direct preference distillation loss of pairs of texts (Li et al. 2024).

    ``-log sigmoid(beta * margin)``, where the margin is the difference of the student's
    log-probability ratios to the teacher on the preferred and on the rejected text. It is the loss
    of DPO (Rafailov et al. 2023) with the teacher as the reference.

    Args:
        student_preferred: student log-probabilities of the preferred texts (N,).
        student_rejected: student log-probabilities of the rejected texts (N,).
        teacher_preferred: teacher log-probabilities of the preferred texts (N,).
        teacher_rejected: teacher log-probabilities of the rejected texts (N,).
        beta: scale of the margin, > 0.

    Returns:
        One value per pair (N,).

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[-3.0, -2.0], [-1.0, -6.0]])
        >>> dpkd_loss(student[:1], student[1:], teacher[:1], teacher[1:], beta=0.5)
        tensor([3.0486])
    """
    margin = (student_preferred - teacher_preferred) - (student_rejected - teacher_rejected)
    return -F.logsigmoid(beta * margin)
