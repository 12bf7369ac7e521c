"""Distances between student and teacher tensors, one value per sample or vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.functional.feature_maps import require_same_shape


def sample_mean(values: Tensor) -> Tensor:
    """Mean of each sample's entries: (N, ...) gives (N,)."""
    return values.flatten(1).sum(1) / max(
        1, values.shape[1:].numel()
    )  # the gradient of a mean would be written out for every entry


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over each sample's entries of the squared difference of two tensors of one shape (N, ...): (N,)."""
    return sample_mean(F.mse_loss(student, teacher, reduction="none"))


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine over the last dimension: (..., D) gives (...)."""
    student, teacher = require_same_shape(student, teacher, "cosine_distance")
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def smooth_l1_distance(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 difference, mean over the last dimension: (..., D) gives (...)."""
    student, teacher = require_same_shape(student, teacher, "smooth_l1_distance")
    return F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).sum(-1) / max(
        1, student.shape[-1]
    )
