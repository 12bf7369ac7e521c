"""Losses on projected student features, where a scheme also uses the last ones.

The scheme returns the last projected features under the role "connected", so that they are computed
once. Where the loss couples the samples, it computes them itself from the counted samples of all
ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from instil.core import Outputs
from instil.functional.pairs import feature_levels
from instil.objectives.bases.feature_objective import FeatureObjective

Compare = Callable[[Tensor, Tensor], Tensor]
"""Loss (N,) of one pair of projected student features and teacher features."""


def project_last(objective: FeatureObjective, student: Outputs) -> Tensor:
    """Projected student features (N, D, *grid) of the last pair, in float32 or better.

    Args:
        objective: the loss, after ``build``.
        student: student outputs.
    """
    level = feature_levels(student)[objective.matched[-1][0]]
    device = level.device.type
    # Autocast is switched off only where it is on, for exported graphs have no such context.
    is_autocast = torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if is_autocast else nullcontext():
        projected: Tensor = objective.adapters[-1](level)
    return projected


def sum_connected_pairs(
    objective: FeatureObjective, student: Outputs, teacher: Outputs, compare: Compare
) -> Tensor:
    """Sum of the losses of all pairs; the scheme may have projected the last student features.

    Args:
        objective: the loss, after ``build``.
        student: student outputs, with or without the role ``connected``.
        teacher: teacher outputs.
        compare: loss of one pair.

    Returns:
        (N,), or a scalar if the objective couples the samples.
    """
    student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
    pairs = zip(objective.adapters[:-1], objective.matched[:-1], strict=True)
    terms = [compare(part(student_levels[i]), teacher_levels[j]) for part, (i, j) in pairs]
    last = student["connected"] if "connected" in student else project_last(objective, student)
    terms.append(compare(last, teacher_levels[objective.matched[-1][1]]))
    return objective.reduce_if_coupled(torch.stack(terms).sum(0))
