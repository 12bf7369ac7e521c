"""Distances between student and teacher tensors, one value per sample or vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.functional.feature_maps import check_same_shape, require_dims, require_same_shape


def sample_mean(values: Tensor) -> Tensor:
    """Mean of the entries of each sample: (N, ...) gives (N,).

    Raises:
        ValueError: for values without a dimension after that of the samples.
    """
    require_dims(values, 2, "student and teacher")
    # The gradient of a mean would be materialized for every entry; that of a sum is expanded.
    return values.flatten(1).sum(1) / max(1, values.shape[1:].numel())


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of each sample: two tensors (N, ...) of one shape give (N,).

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(student, teacher, "student and teacher", 2)
    return sample_mean(F.mse_loss(student, teacher, reduction="none"))


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine similarity over the last dimension: (..., D) gives (...)."""
    student, teacher = require_same_shape(student, teacher, "cosine_distance")
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def smooth_l1_distance(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Mean smooth L1 difference over the last dimension: (..., D) gives (...).

    Args:
        student: (..., D).
        teacher: (..., D).
        beta: difference at which the loss turns from quadratic to linear.
    """
    student, teacher = require_same_shape(student, teacher, "smooth_l1_distance")
    values = F.smooth_l1_loss(student, teacher, reduction="none", beta=beta)
    return values.sum(-1) / max(1, student.shape[-1])
