"""Loss of an objective over its items, protected from items that do not count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.core.objective import Objective
from instil.items import Batch, Outputs, item_weights, mean
from instil.items.selection import mean_of_positions
from instil.items.uncounted import replace_in_batch, replace_in_outputs
from instil.roles import RoleConsumer


def without_uncounted(
    objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Outputs, Outputs, Batch]:
    """Outputs and batch in which the values of uncounted items are replaced.

    Args:
        objective: the loss that reads them.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch of the step.
    """
    if objective.couples and type(objective).state_updates is Objective.state_updates:
        # It reads only the rows that ``Objectives._coupled`` selects.
        return student, teacher, batch
    counted = objective.item_mask(batch)
    if counted is None:
        return student, teacher, batch
    teacher_counted = counted
    if "teacher_valid" in batch and counted.ndim == 2:
        # The teacher reads tokens of another tokenizer at other positions.
        teacher_counted = (batch["teacher_valid"] > 0) & counted.any(1, keepdim=True)
    if not objective.needs_input_grad:
        # A copy of the outputs has no gradient by the input: such objectives replace themselves.
        student = replace_in_outputs(student, roles_read(objective, "student"), counted)
        teacher = replace_in_outputs(teacher, roles_read(objective, "teacher"), teacher_counted)
    return student, teacher, replace_in_batch(batch, counted)


def item_mean(objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
    """Weighted mean over the items of an objective that does not couple them.

    Args:
        objective: the loss.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch of the step.

    Raises:
        ValueError: if the objective does not return one value per item.
    """
    weight = objective.weight(batch)
    values = _checked(objective, objective(student, teacher, batch), weight)
    if objective.sample_weight is not None:
        with torch.no_grad():
            factor = objective.sample_weight(student, teacher, batch)
        if factor.ndim > weight.ndim:
            factor = mean_of_positions(factor, item_weights(batch))
        if factor.shape == weight.shape:
            factor = torch.where(weight > 0, factor, 0.0)
        values = values * factor
    return mean(values, weight, objective.num_items(batch))


def _checked(objective: Objective, values: Any, weight: Tensor) -> Tensor:
    """Return the values of an objective if there is one for each item."""
    name = f"{type(objective).__name__}.forward"
    if not isinstance(values, Tensor):
        raise ValueError(
            f"{name}: Expected a tensor with one loss per item, got {type(values).__name__}"
        )
    if values.ndim == 0 and weight.ndim > 0 and not objective.returns_mean:
        raise ValueError(
            f"{name}: returned a scalar. Expected one loss per item, of shape "
            f"{tuple(weight.shape)}. Return no mean, or set couples=True in the card"
        )
    if values.ndim > 0 and values.shape != weight.shape and objective.sample_weight is None:
        raise ValueError(
            f"{name}: loss values {tuple(values.shape)} for items {tuple(weight.shape)}; if a "
            "sample has several items, the batch needs 'valid'"
        )
    return values


def roles_read(module: nn.Module, side: str) -> set[str]:
    """Roles of ``side`` that a module and its parts, such as sample weights, read."""
    consumers = [part for part in module.modules() if isinstance(part, RoleConsumer)]
    return set().union(*(part.reads.get(side, ()) for part in consumers))
