"""Similarity of the feature levels of a teacher and an untrained student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import Outputs
from instil.objectives.relations.cka import cka_loss

CHANNELS_LAST = ("hidden_states", "embedding")
"""Roles whose last axis has the channels, as in ``features`` of tokens (N, L, C); the axis 1 of
other ``features`` has them."""


def level_similarities(
    student_outputs: Sequence[Outputs], teacher_outputs: Sequence[Outputs]
) -> list[float]:
    """Centred kernel alignment of each student level with the teacher level at its depth.

    A level is the mean of its features over all positions. The first of the roles ``features``,
    ``hidden_states`` and ``embedding`` that both networks have is compared.

    Args:
        student_outputs: outputs for some batches.
        teacher_outputs: outputs for the same batches.

    Returns:
        One number in [0, 1] per student level (Kornblith et al. 2019); empty without such a role.
    """
    for role in ("features", *CHANNELS_LAST):
        student_levels = _pooled_levels(student_outputs, role)
        teacher_levels = _pooled_levels(teacher_outputs, role)
        # Rows differ if a level has one for each frame or view, and not for each sample.
        lengths = {len(level) for level in (*student_levels, *teacher_levels)}
        if student_levels and teacher_levels and len(lengths) == 1:
            pairs = zip(student_levels, _at_depths(teacher_levels, student_levels), strict=True)
            return [float(1 - cka_loss(student, teacher)) for student, teacher in pairs]
    return []


def last_level(outputs: Sequence[Outputs]) -> Tensor | None:
    """Return the last level of a network as a matrix (N, C); None without such a role.

    Args:
        outputs: outputs for some batches.
    """
    for role in ("features", *CHANNELS_LAST):
        if levels := _pooled_levels(outputs, role):
            return levels[-1]
    return None


def _at_depths(levels: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Return the level at the relative depth of each of some other levels."""
    scale = len(levels) / len(others)
    # Several of many levels have the first one of few: index -1 would be the last one.
    return [levels[max(0, round((index + 1) * scale) - 1)] for index in range(len(others))]


def _pooled_levels(outputs: Sequence[Outputs], role: str) -> list[Tensor]:
    """Return one matrix (N, C) per level; empty if a batch does not have the role."""
    if not all(role in batch_outputs for batch_outputs in outputs):
        return []
    batches = [_as_tuple(batch_outputs[role]) for batch_outputs in outputs]
    levels = []
    for parts in zip(*batches, strict=True):
        if not all(isinstance(part, Tensor) and part.ndim > 1 for part in parts):
            return []
        levels.append(torch.cat([_pooled(part, role) for part in parts]))
    return levels


def _pooled(part: Tensor, role: str) -> Tensor:
    part = part.detach().float()
    if role in CHANNELS_LAST or part.ndim == 3:
        return part.flatten(1, -2).mean(1) if part.ndim > 2 else part
    return part.flatten(2).mean(2) if part.ndim > 2 else part


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
