"""Contracts about items that do not count: their values change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Objective,
    Objectives,
    batch_size,
)
from instil.roles import SHARED_ROLES
from instil.testing.structures import assert_close, select_rows
from instil.testing.trials import (
    Trial,
    build_objective,
    has_sample_axis,
    loss_and_gradient,
    sample_trial,
)

Poison = Literal["noise", "nan", "inf"]
POISONS: tuple[Poison, ...] = ("noise", "nan", "inf")
NOT_FINITE: tuple[Poison, ...] = ("nan", "inf")


def only_counted_items(make: Callable[[], Objective]) -> None:
    """Check that invalid samples, and unlabelled ones for a loss with labels, change nothing.

    They hold noise, NaN or infinite values in the outputs of both sides and in real labels. Loss,
    gradients and state must be those of the batch without these samples.

    Args:
        make: returns a new objective.
    """
    _only_valid_samples(make, POISONS)
    _only_labelled_items(make)


def other_tasks(make: Callable[[], Objective]) -> None:
    """Check that invalid samples with NaN change nothing, for the further tasks on the card.

    Args:
        make: returns a new objective.

    Raises:
        AssertionError: with the name of the task.
    """
    for task in make().card.tasks[1:]:
        try:
            objective = build_objective(make, task=task)
            loss_and_gradient(objective, *_trial_of(objective, task))
        # The objective does not accept these samples, for example because of their roles.
        except ValueError:
            continue
        try:
            _only_valid_samples(make, ("nan",), task)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise AssertionError(f"{task}: {error}") from error


def _only_valid_samples(
    make: Callable[[], Objective], poisons: tuple[Poison, ...], task: str | None = None
) -> None:
    objective = build_objective(make, task=task)
    trial = _trial_of(objective, task)
    rows = torch.tensor([True, False] * (batch_size(trial[2]) // 2))
    student, teacher, batch = (select_rows(part, rows) for part in trial)
    valid = rows
    if "valid" in batch:
        valid = rows.view(-1, *[1] * (batch["valid"].ndim - 1)).expand_as(trial[2]["valid"])
    loss, grads = loss_and_gradient(copy.deepcopy(objective), student, teacher, batch)
    whole = trial[0], trial[1], trial[2] | {"valid": valid}
    state = _next_state(objective, whole)
    for poison in poisons:
        message = f"an invalid sample that holds {poison}"
        poisoned = _poisoned_trial(objective, whole, ~rows, poison)
        poisoned_loss, other = loss_and_gradient(copy.deepcopy(objective), *poisoned)
        assert_close(loss, poisoned_loss, f"{message} changes the loss")
        for name, grad in grads.items():
            if not has_sample_axis(name, objective):
                assert_close(grad, other[name], f"{message} changes the gradient of {name}")
                continue
            assert_close(
                grad, other[name][rows], f"{message} changes the gradient of other rows of {name}"
            )
            if not objective.needs_input_grad:
                # A gradient by the input passes the network itself, which the noise is part of.
                assert (other[name][~rows] == 0).all(), f"{message} has a gradient in {name}"
        for name, value in _next_state(objective, poisoned).items():
            assert_close(
                state[name].double(), value.double(), f"{message} changes the state '{name}'"
            )


def _trial_of(objective: Objective, task: str | None) -> Trial:
    """Return sample outputs, with ``valid`` if the items of the objective are positions."""
    student, teacher, batch = sample_trial(objective, task=task)
    items = student["logits"].shape[:-1] if "logits" in student else ()
    if task is not None and not objective.items.per_sample and len(items) > 1:
        # Without "valid" the objective would count samples instead of positions.
        batch = batch | {"valid": torch.ones(items, dtype=torch.bool)}
    return student, teacher, batch


def _only_labelled_items(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    if not objective.items.labelled:
        return
    trial = sample_trial(objective)
    loss, grads = loss_and_gradient(objective, *trial)
    labelled = trial[2]["label"] != UNLABELLED
    items = objective.weight(trial[2]).ndim
    labelled = labelled.flatten(items).any(-1) if labelled.ndim > items else labelled
    for poison in POISONS:
        message = f"an unlabelled item that holds {poison}"
        outputs = _poisoned_trial(objective, trial, ~labelled, poison)[:2]
        poisoned_loss, other = loss_and_gradient(objective, *outputs, trial[2])
        assert_close(loss, poisoned_loss, f"{message} changes the loss")
        for name, grad in grads.items():
            assert_close(grad, other[name], f"{message} changes the gradient of {name}")


def only_counted_positions(make: Callable[[], Objective]) -> None:
    """Check that NaN or infinite values at invalid or padded positions change nothing.

    An objective with one value for each sample may use these positions; it is checked only if noise
    in them changes nothing.

    Args:
        make: returns a new objective.
    """
    objective = build_objective(make)
    for name, trial, counted in _with_positions(sample_trial(objective)):
        loss, grads = loss_and_gradient(objective, *trial)
        noisy, _ = loss_and_gradient(
            objective, *_poisoned_trial(objective, trial, ~counted, "noise")
        )
        if objective.items.per_sample and not torch.equal(loss, noisy):
            continue
        assert_close(loss, noisy, f"noise at a position without {name} changes the loss")
        for poison in NOT_FINITE:
            message = f"a position without {name} that holds {poison}"
            poisoned = _poisoned_trial(objective, trial, ~counted, poison)
            poisoned_loss, other = loss_and_gradient(objective, *poisoned)
            assert_close(loss, poisoned_loss, f"{message} changes the loss")
            for role, grad in grads.items():
                assert_close(grad, other[role], f"{message} changes the gradient of {role}")


def _with_positions(trial: Trial) -> Iterator[tuple[str, Trial, Tensor]]:
    """Yield the name of the mask, the trial and the mask for each way to mask positions."""
    student, teacher, batch = trial
    if "attention_mask" in batch:
        yield "attention_mask", trial, batch["attention_mask"] > 0
    label = batch.get("label")
    if label is not None and label.ndim > 1 and not label.is_floating_point():
        valid = (torch.arange(label.numel()) % 3 > 0).view(label.shape)
        yield "valid", (student, teacher, batch | {"valid": valid}), valid


def _next_state(objective: Objective, trial: Trial) -> dict[str, Tensor]:
    """Return the state after a step; empty for an objective without state updates."""
    if type(objective).state_updates is Objective.state_updates:
        return {}
    moved = copy.deepcopy(objective)
    objectives = Objectives({"it": moved})
    with torch.no_grad():
        objectives.after_step(objectives(*trial).state_updates)
    return moved.state_dict()


def _poisoned_trial(objective: Objective, trial: Trial, rows: Tensor, poison: Poison) -> Trial:
    """Return the trial with ``poison`` in some items of both sides and of real labels."""
    student, teacher, batch = trial
    labels: dict[str, Any] = {key: batch[key] for key in ("label", "box") if key in batch}
    if objective.needs_input_grad:
        # NaN in the student would be NaN inside the network, which no objective can undo.
        return student, poisoned(teacher, rows, poison), batch
    return (
        poisoned(student, rows, poison),
        poisoned(teacher, rows, poison),
        batch | poisoned(labels, rows, poison),
    )


def poisoned(outputs: dict[str, Any], rows: Tensor, poison: Poison) -> dict[str, Any]:
    """Replace some items by noise, NaN or infinite values, in everything that has items.

    Args:
        outputs: outputs of one side, or entries of a batch.
        rows: True for the items to change: samples (N), or positions (N, ...).
        poison: replacement.
    """

    def changed(value: Any, role: str = "") -> Any:
        if role in SHARED_ROLES:
            return value
        if isinstance(value, tuple):
            return tuple(changed(part) for part in value)
        if isinstance(value, dict):
            return {name: changed(part, name) for name, part in value.items()}
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if value.shape[: rows.ndim] != rows.shape:
            return value
        mask = rows.view(*rows.shape, *[1] * (value.ndim - rows.ndim))
        return torch.where(mask, _values(poison, value), value)

    return {role: changed(value, role) for role, value in outputs.items()}


def _values(poison: Poison, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    noise = 100 * torch.randn(like.shape, generator=generator).to(like.dtype)
    if poison == "noise":
        return noise
    return torch.full_like(like, torch.nan) if poison == "nan" else noise * torch.inf
