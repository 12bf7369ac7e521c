"""Sample outputs that depend on an input, for objectives that take gradients by the input."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Objective, Outputs, to_float32


def link_to_input(outputs: Outputs) -> Outputs:
    """Make feature levels depend on ``input``, and logits on ``input`` and the deepest level.

    The dependence is smooth, bounded, separate for each sample, and the same for equal outputs.

    Args:
        outputs: outputs of one side with ``input``, ``features`` and ``logits``.
    """
    inputs = to_float32(outputs["input"]).flatten(1)
    features = []
    for level in outputs["features"]:
        factor = 1 + _waves(inputs, level[0].numel()).view(level.shape) / 2
        features.append((to_float32(level) * factor).to(level.dtype))
    if len(features) > 1 and features[-1].ndim == 3:
        # Losses on tokens may read the level before the last, on which the logits must depend.
        features[-1] = features[-1] * _factors(features[-2], features[-1])
    deepest = _waves(to_float32(features[-1]).flatten(1), outputs["logits"].shape[1])
    factor = 1 + _waves(inputs, deepest.shape[1]) / 2
    logits = to_float32(outputs["logits"]) * factor + deepest
    return outputs | {"features": tuple(features), "logits": logits.to(outputs["logits"].dtype)}


def _factors(level: Tensor, like: Tensor) -> Tensor:
    """Factors of the shape of one level that depend on another level."""
    waves = _waves(to_float32(level).flatten(1), like[0].numel())
    return (1 + waves / 2).view(like.shape).to(like.dtype)


def _waves(values: Tensor, width: int) -> Tensor:
    """Return a bounded smooth function (N, width) of values (N, D)."""
    angles = 7 * torch.arange(values.shape[1] * width, dtype=values.dtype)
    weight = angles.cos().view(-1, width) / values.shape[1] ** 0.5
    waves: Tensor = (values @ weight).sin()
    return waves


def link_if_needed(
    objective: Objective, student: Outputs, teacher: Outputs
) -> tuple[Outputs, Outputs]:
    """Link both sides to one input if an objective takes gradients by the input.

    Args:
        objective: objective to test.
        student: sample outputs of the student.
        teacher: sample outputs of the teacher.
    """
    if not objective.needs_input_grad:
        return student, teacher
    return link_to_input(student), link_to_input(teacher | {"input": student["input"]})
