"""Trial runs of an objective on sample outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Batch, Objective, Objectives, Outputs
from instil.roles import SHARED_ROLES
from instil.testing.samples import leaves, link_if_needed, named_tensors, sample_outputs


def loss_and_gradient(
    objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss as the engine would take it, and its gradient by every student tensor read and every parameter that learns."""
    student = leaves(student)
    loss = Objectives({"it": objective})(
        *link_if_needed(objective, student, teacher), batch
    ).losses["it"]
    tensors = dict(named_tensors({role: student[role] for role in objective.reads["student"]}))
    tensors |= {
        name: parameter
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad
    }
    grads = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    return loss.detach(), {
        name: torch.zeros_like(t) if g is None else g
        for (name, t), g in zip(tensors.items(), grads, strict=True)
    }


def build_objective(
    make: Callable[[], Objective], teacher: Outputs | None = None, task: str | None = None
) -> Objective:
    """Build an objective with its adapters on sample outputs.

    Args:
        make: returns a new objective.
        teacher: teacher outputs to build for, in place of the sample outputs.
        task: task of the sample outputs; the first one on the card if it is None.
    """
    torch.manual_seed(0)
    objective = make()
    student, usual, _ = sample_trial(objective, task=task)
    with torch.no_grad():
        Objectives({"it": objective}).build(student, usual if teacher is None else teacher)
        before = sample_outputs(seed=1, task=task or objective.card.tasks[0])
        if not bool(
            objective.weight(before[2]).any()
        ):  # it learns from the step before: let there be one
            objective.after_step(objective.state_updates(*before))
    return objective.train()


def sample_trial(
    objective: Objective,
    number: int = 8,
    dtype: torch.dtype = torch.float32,
    task: str | None = None,
) -> tuple[Outputs, Outputs, Batch]:
    """Sample outputs of a task; of the first one on the objective's card if it is None."""
    task = task or objective.card.tasks[0]
    student, teacher, batch = sample_outputs(number, dtype=dtype, task=task)
    if objective.card.views_per_sample > 1:
        batch |= {
            "index": batch["index"] // objective.card.views_per_sample,
            "view": batch["index"] % objective.card.views_per_sample,
        }
    return student, teacher, batch


def has_sample_axis(name: str, objective: Objective) -> bool:
    """Whether a gradient of ``loss_and_gradient`` has one row a sample: no parameter, and no role that all samples share."""
    return (
        name not in dict(objective.named_parameters())
        and name.partition(".")[0] not in SHARED_ROLES
    )
