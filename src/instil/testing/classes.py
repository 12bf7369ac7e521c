"""What a loss on logits promises of its items and classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.cards import has_tag
from instil.core import UNLABELLED, Batch, Objective, Objectives, Outputs
from instil.testing.samples import assert_close, leaves, link_if_needed, sample_outputs
from instil.testing.trials import build_objective, loss_and_gradient, sample_trial


def check_position_shapes(make: Callable[[], Objective]) -> None:
    """Logits (3, 4, C) of positions give the loss of logits (12, C): classes, pixels, tokens and nodes are one code.

    Positions that are not valid hold NaN on both sides, which changes nothing.

    A promise of the package's own losses on logits, which ``check_objective`` does not ask of others.
    """
    if not _reads_logits_alone(make()) or has_tag(make(), "related_positions"):
        return
    student, teacher, batch = sample_outputs(12)
    valid = torch.arange(12) % 5 > 0
    whole = {key: value for key, value in batch.items() if key != "index"} | {"valid": valid}
    try:
        loss, gradient = _by_logits(make, student, teacher, whole)
    except ValueError as error:
        if "index" in str(error):  # what is drawn or remembered is drawn for a sample
            return
        raise
    grid = {key: value.view(3, 4) if value.ndim else value for key, value in whole.items()}
    positions = [
        {"logits": side["logits"].masked_fill(~grid["valid"][..., None], torch.nan)}
        for side in (_gridded(student), _gridded(teacher))
    ]
    again, other = _by_logits(make, positions[0], positions[1], grid)
    assert_close(loss, again, "the loss of positions (3, 4) is not that of 12 items")
    assert_close(
        gradient, other.flatten(0, 1), "the gradient of positions (3, 4) is not that of 12 items"
    )


def few_classes(make: Callable[[], Objective]) -> None:
    """With two classes, and with one, the loss and its gradient are finite, or a ValueError says how many there must be."""
    if "logits" not in make().reads["student"] or make().card.tasks[0] != "classification":
        return
    student, teacher, batch = sample_outputs()
    for classes in (2, 1):

        def cut(value: Tensor, count: int = classes) -> Tensor:
            return value[..., :count] if value.shape[-1] > count else value

        label = torch.where(batch["label"] == UNLABELLED, UNLABELLED, batch["label"] % classes)

        def fewer(side: Outputs, count: int = classes) -> Outputs:
            return {
                **side,
                "logits": cut(side["logits"]),
                "head": tuple(part[:count] for part in side["head"]),
            }

        mine, theirs = (
            fewer(student),
            fewer(teacher) | {"members": tuple(map(fewer, teacher["members"]))},
        )
        try:
            loss, gradient = _by_logits(make, mine, theirs, batch | {"label": label})
        except ValueError as error:
            if "class" not in str(error):
                raise AssertionError(
                    f"with {classes} classes the error says nothing of classes: {error}"
                ) from error
            continue
        assert torch.isfinite(loss), f"the loss of {classes} classes is {loss}"
        assert torch.isfinite(gradient).all(), f"the gradient of {classes} classes is not finite"


def impossible_class(make: Callable[[], Objective]) -> None:
    """Loss and gradient are finite where a class has the logit minus infinity on both sides.

    Such a class is excluded, for example padding of a vocabulary. Not asked of an objective whose
    card says ``finite_logits``, of real outputs, and with ``standardize``.
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
    student, teacher = _without_class(student, last), _without_class(teacher, last)
    if "label" in batch:
        batch = batch | {"label": batch["label"].masked_fill(batch["label"] == last, 0)}
    if type(objective).state_updates is not Objective.state_updates:
        # What it remembers of earlier samples must not have the class either.
        with torch.no_grad():
            objective.after_step(objective.state_updates(student, teacher, batch))
    loss, gradients = loss_and_gradient(objective, student, teacher, batch)
    assert torch.isfinite(loss), (
        f"the loss is {loss} where a class is minus infinity on both sides; if it reads logits "
        "otherwise than through a softmax, its card says so (finite_logits)"
    )
    for name, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), (
            f"the gradient of {name} is not finite where a class is minus infinity on both sides"
        )


def _without_class(outputs: Outputs, index: int) -> Outputs:
    """Outputs of one side whose logits exclude a class."""
    logits = outputs["logits"].clone()
    logits[..., index] = -torch.inf
    changed = outputs | {"logits": logits}
    if "members" in outputs:
        changed["members"] = tuple(_without_class(member, index) for member in outputs["members"])
    return changed


def _reads_logits_alone(objective: Objective) -> bool:
    reads = {role for roles in objective.reads.values() for role in roles}
    return (
        reads == {"logits"}
        and not objective.items.per_sample
        and objective.card.tasks[0] == "classification"
    )


def _gridded(outputs: Outputs) -> Outputs:
    return {"logits": outputs["logits"].view(3, 4, -1)}


def _by_logits(
    make: Callable[[], Objective], student: Outputs, teacher: Outputs, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The loss of a new objective, and its gradient by the student's logits."""
    torch.manual_seed(0)
    objective = make()
    objectives = Objectives({"it": objective})
    with torch.no_grad():
        objectives.build(student, teacher)
    student = leaves(student)
    loss = objectives(*link_if_needed(objective, student, teacher), batch).losses["it"]
    (gradient,) = torch.autograd.grad(loss, student["logits"], allow_unused=True)
    return loss.detach(), torch.zeros_like(student["logits"]) if gradient is None else gradient
