"""Adapters and distance for networks of the stages of two networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter


def bridge(source: Tensor, target: Tensor) -> nn.Sequential:
    """Create the adapter from a stage of one network to a stage of the other.

    Args:
        source: stage to adapt (N, ...).
        target: stage of the other network (N, ...).

    Returns:
        A 3x3 convolution, or a linear map for stages that are vectors. If the target has no
        negative value, a leaky ReLU follows, because the next layers expect such values.
    """
    # The comparison is False for the NaN of an invalid sample.
    is_negative = bool((target < 0).any())
    end = nn.Identity() if is_negative else nn.LeakyReLU(0.1)
    return nn.Sequential(StageAdapter(source, target, kernel=3), end)


def appearance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Compute the mean squared differences of stages, summed over the stages.

    For feature maps the pooled, rectified maps of the deepest stage add one more term.

    Args:
        student: adapted stages of the student (N, ...).
        teacher: stages of the teacher (N, ...), in the same shapes.

    Returns:
        One value per sample (N,).
    """
    terms = [
        (to_float32(student_stage) - teacher_stage).square().flatten(1).mean(1)
        for student_stage, teacher_stage in zip(student, teacher, strict=True)
    ]
    if student[-1].ndim == 4:
        student_embedding = global_average_pool(to_float32(student[-1]).relu())
        teacher_embedding = global_average_pool(to_float32(teacher[-1]).relu())
        terms.append((student_embedding - teacher_embedding).square().mean(1))
    return torch.stack(terms).sum(0)
