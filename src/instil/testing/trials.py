"""Evaluation of an objective on sample outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Batch, Objective, Objectives, Outputs
from instil.roles import SHARED_ROLES
from instil.testing.linked import link_if_needed
from instil.testing.samples import sample_outputs
from instil.testing.structures import leaves, named_tensors

Trial = tuple[Outputs, Outputs, Batch]
"""Student outputs, teacher outputs and batch."""


def loss_and_gradient(
    objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mean loss of a training step and its gradients.

    Args:
        objective: objective with its adapters.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch.

    Returns:
        The loss, and the gradient by each student tensor that the objective reads and by each
        trainable parameter; zeros for one that the loss does not depend on.
    """
    student = leaves(student)
    sides = link_if_needed(objective, student, teacher)
    loss = Objectives({"it": objective})(*sides, batch).losses["it"]
    roles = {role: student[role] for role in objective.reads["student"]}
    inputs = {name: value for name, value in named_tensors(roles) if value.requires_grad}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            inputs[name] = parameter
    grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(tensor) if grad is None else grad
        for (name, tensor), grad in zip(inputs.items(), grads, strict=True)
    }
    return loss.detach(), gradients


def build_objective(
    make: Callable[[], Objective], teacher: Outputs | None = None, task: str | None = None
) -> Objective:
    """Build an objective with its adapters on sample outputs.

    Args:
        make: returns a new objective.
        teacher: teacher outputs to build for; None: the sample outputs.
        task: task of the sample outputs; None: the first one on the card.
    """
    torch.manual_seed(0)
    objective = make()
    student, sample_teacher, _ = sample_trial(objective, task=task)
    with torch.no_grad():
        Objectives({"it": objective}).build(student, sample_teacher if teacher is None else teacher)
        before = sample_outputs(seed=1, task=task or objective.card.tasks[0])
        # An objective without counted items may compare with the step before: run one.
        if not bool(objective.weight(before[2]).any()):
            objective.after_step(objective.state_updates(*before))
    return objective.train()


def sample_trial(
    objective: Objective,
    num_samples: int = 8,
    dtype: torch.dtype = torch.float32,
    task: str | None = None,
    seed: int = 0,
) -> Trial:
    """Return sample outputs for an objective.

    Args:
        objective: objective, which decides the number of views of a sample.
        num_samples: number of rows.
        dtype: type of the outputs.
        task: task of the outputs; None: the first one on the card.
        seed: random seed.
    """
    task = task or objective.card.tasks[0]
    student, teacher, batch = sample_outputs(num_samples, seed, dtype, task)
    if ("loss",) in objective.needs["student"]:
        # Only here: further sample outputs would change the draws of every network made from them.
        student["loss"] = student["logits"].square().mean(-1)
    if objective.card.views_per_sample > 1:
        batch |= {
            "index": batch["index"] // objective.card.views_per_sample,
            "view": batch["index"] % objective.card.views_per_sample,
        }
    return student, teacher, batch


def has_sample_axis(name: str, objective: Objective) -> bool:
    """Whether a gradient of ``loss_and_gradient`` has one row for each sample.

    Args:
        name: name of the gradient.
        objective: objective; its parameters and shared roles have no such axis.
    """
    is_parameter = name in dict(objective.named_parameters())
    return not is_parameter and name.partition(".")[0] not in SHARED_ROLES
