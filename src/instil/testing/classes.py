"""Contracts about the items and classes of losses on logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.cards import has_tag
from instil.core import UNLABELLED, Batch, Objective, Objectives, Outputs
from instil.testing.linked import link_if_needed
from instil.testing.samples import sample_outputs
from instil.testing.structures import assert_close, leaves
from instil.testing.trials import build_objective, loss_and_gradient, sample_trial


def check_position_shapes(make: Callable[[], Objective]) -> None:
    """Check that logits (3, 4, C) of positions give the loss of logits (12, C).

    So classes, pixels, tokens and nodes share one implementation. Invalid positions hold NaN on
    both sides, which must change nothing. This contract holds for the losses of this package;
    ``check_objective`` does not require it of others.

    Args:
        make: returns a new objective.

    Raises:
        AssertionError: if loss or gradient differ.
    """
    if not _reads_logits_only(make()) or has_tag(make(), "related_positions"):
        return
    student, teacher, batch = sample_outputs(12)
    valid = torch.arange(12) % 5 > 0
    flat = {key: value for key, value in batch.items() if key != "index"} | {"valid": valid}
    try:
        loss, gradient = _loss_and_logit_gradient(make, student, teacher, flat)
    except ValueError as error:
        # An objective that samples or remembers needs the index of a sample, not of a position.
        if "index" in str(error):
            return
        raise
    grid = {key: value.view(3, 4) if value.ndim else value for key, value in flat.items()}
    student, teacher = (
        {"logits": side["logits"].view(3, 4, -1).masked_fill(~grid["valid"][..., None], torch.nan)}
        for side in (student, teacher)
    )
    grid_loss, grid_gradient = _loss_and_logit_gradient(make, student, teacher, grid)
    message = "of positions (3, 4) is not that of 12 items"
    assert_close(loss, grid_loss, f"the loss {message}")
    assert_close(gradient, grid_gradient.flatten(0, 1), f"the gradient {message}")


def few_classes(make: Callable[[], Objective]) -> None:
    """Check one and two classes: finite values, or a ValueError about the number of classes.

    Args:
        make: returns a new objective.

    Raises:
        AssertionError: for other values or errors.
    """
    if "logits" not in make().reads["student"] or make().card.tasks[0] != "classification":
        return
    student, teacher, batch = sample_outputs()
    for num_classes in (2, 1):
        is_unlabelled = batch["label"] == UNLABELLED
        label = torch.where(is_unlabelled, UNLABELLED, batch["label"] % num_classes)
        members = tuple(_first_classes(member, num_classes) for member in teacher["members"])
        few_teacher = _first_classes(teacher, num_classes) | {"members": members}
        few_student = _first_classes(student, num_classes)
        try:
            loss, gradient = _loss_and_logit_gradient(
                make, few_student, few_teacher, batch | {"label": label}
            )
        except ValueError as error:
            if "class" not in str(error):
                raise AssertionError(
                    f"with {num_classes} classes the error does not name classes: {error}"
                ) from error
            continue
        assert torch.isfinite(loss), f"the loss of {num_classes} classes is {loss}"
        assert torch.isfinite(gradient).all(), (
            f"the gradient of {num_classes} classes is not finite"
        )


def _first_classes(outputs: Outputs, num_classes: int) -> Outputs:
    logits = outputs["logits"]
    if logits.shape[-1] > num_classes:
        logits = logits[..., :num_classes]
    head = tuple(part[:num_classes] for part in outputs["head"])
    return {**outputs, "logits": logits, "head": head}


def impossible_class(make: Callable[[], Objective]) -> None:
    """Check that loss and gradient are finite if a class has the logit minus infinity.

    Such a class is excluded on both sides, for example the padding of a vocabulary. The contract
    does not apply to cards with ``finite_logits``, to real outputs, and to ``standardize``.

    Args:
        make: returns a new objective.

    Raises:
        AssertionError: if a value is not finite.
    """
    objective = make()
    standardizes = getattr(objective, "standardize", False)
    if not set(objective.reads["student"]) & {"logits", "projection"}:
        return
    if objective.card.finite_logits or standardizes or "real" in objective.card.labels:
        return
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    last = student["logits"].shape[-1] - 1
    student = _without_class(student, last)
    teacher = _without_class(teacher, last)
    if "label" in batch:
        batch = batch | {"label": batch["label"].masked_fill(batch["label"] == last, 0)}
    if type(objective).state_updates is not Objective.state_updates:
        # The memory of earlier samples must not have the class either.
        with torch.no_grad():
            objective.after_step(objective.state_updates(student, teacher, batch))
    loss, gradients = loss_and_gradient(objective, student, teacher, batch)
    assert torch.isfinite(loss), (
        f"the loss is {loss} if a class is minus infinity on both sides; a loss that reads logits "
        "without a softmax declares it on the card (finite_logits)"
    )
    for name, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), (
            f"the gradient of {name} is not finite if a class is minus infinity on both sides"
        )


def _without_class(outputs: Outputs, index: int) -> Outputs:
    """Return outputs of one side whose logits exclude a class."""
    logits = outputs["logits"].clone()
    logits[..., index] = -torch.inf
    changed = outputs | {"logits": logits}
    if "members" in outputs:
        changed["members"] = tuple(_without_class(member, index) for member in outputs["members"])
    return changed


def _reads_logits_only(objective: Objective) -> bool:
    reads: set[str] = set()
    for roles in objective.reads.values():
        reads |= set(roles)
    is_classification = objective.card.tasks[0] == "classification"
    return reads == {"logits"} and not objective.items.per_sample and is_classification


def _loss_and_logit_gradient(
    make: Callable[[], Objective], student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Return the loss of a new objective and its gradient by the student's logits."""
    torch.manual_seed(0)
    objective = make()
    objectives = Objectives({"it": objective})
    with torch.no_grad():
        objectives.build(student, teacher)
    student = leaves(student)
    sides = link_if_needed(objective, student, teacher)
    loss = objectives(*sides, batch).losses["it"]
    (gradient,) = torch.autograd.grad(loss, student["logits"], allow_unused=True)
    return loss.detach(), torch.zeros_like(student["logits"]) if gradient is None else gradient
