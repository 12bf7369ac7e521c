"""Pairs of levels of point features, for losses that read their positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Outputs, to_float32
from instil.functional.pairs import feature_levels
from instil.items.point_features import align_point_features, is_point_map, positions_of
from instil.objectives.bases.feature_objective import FeatureObjective

POINT_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "student": (("features",), ("positions",)),
    "teacher": (("features",), ("positions",)),
}
"""Needs of a loss on the features of points of both sides."""

PointLoss = Callable[[Tensor, Tensor, Tensor, nn.Module], Tensor]
"""``(student features (N, P, C), teacher features (N, P, D), positions (N, P, 3), adapter)`` ->
losses (N,)."""


def require_point_maps(objective: FeatureObjective, student: Outputs, teacher: Outputs) -> None:
    """Check the paired levels of a loss on points, after ``build``.

    Args:
        objective: the loss.
        student: aligned outputs of the student.
        teacher: aligned outputs of the teacher.

    Raises:
        ValueError: for a level without one vector for each point of the student.
    """
    student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
    for i, j in objective.matched:
        positions = positions_of(student["positions"], i)
        for level in (student_levels[i], teacher_levels[j]):
            if not is_point_map(level, positions):
                raise ValueError(
                    f"{type(objective).__name__} needs features of the {positions.shape[1]} points "
                    f"of the student. Expected (N, C, 1, {positions.shape[1]}), got "
                    f"{tuple(level.shape)}. Choose other levels with `pairs`"
                )


def point_losses(
    objective: FeatureObjective, student: Outputs, teacher: Outputs, loss: PointLoss
) -> Tensor:
    """Sum of a loss over the pairs of levels, one value per sample.

    Args:
        objective: objective whose pairs and adapters are used.
        student: outputs of the student.
        teacher: outputs of the teacher; its points may be others.
        loss: loss of one pair.

    Returns:
        (N,).
    """
    student, teacher = align_point_features(student, teacher)
    student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
    terms = []
    for (i, j), adapter in zip(objective.matched, objective.adapters, strict=True):
        student_points, teacher_points = (
            to_float32(level).squeeze(2).mT for level in (student_levels[i], teacher_levels[j])
        )
        positions = positions_of(student["positions"], i)
        terms.append(loss(student_points, teacher_points, positions, adapter))
    return torch.stack(terms).sum(0)
