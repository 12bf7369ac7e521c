"""Contracts of objectives."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Objective, Objectives, batch_size
from instil.testing.classes import few_classes, impossible_class
from instil.testing.grids import grids_of_the_card
from instil.testing.linked import link_if_needed
from instil.testing.structures import (
    assert_close,
    leaves,
    make_strided,
    named_tensors,
    scale_tensors,
    select_rows,
)
from instil.testing.trials import build_objective, has_sample_axis, loss_and_gradient, sample_trial
from instil.testing.uncounted import only_counted_items, only_counted_positions, other_tasks

NUM_STEPS = 20


def check_objective(make: Callable[[], Objective]) -> None:
    """Check all contracts of an objective.

    Args:
        make: returns a new objective with its options.

    Raises:
        AssertionError: for the first broken contract, with its name.
    """
    for contract in CONTRACTS:
        try:
            contract(make)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise AssertionError(
                f"{contract.__name__.strip('_').replace('_', ' ')}: {error}"
            ) from error


def _finite_at_extremes(make: Callable[[], Objective]) -> None:
    for dtype, scale in itertools.product((torch.float32, torch.bfloat16), (1.0, 1e4)):
        student, teacher, batch = sample_trial(make(), dtype=dtype)
        student = scale_tensors(student, scale)
        teacher = scale_tensors(teacher, scale)
        # The opposite of the student is the largest difference. An adapter needs a real teacher.
        opposite = teacher if _has_adapter(make) else scale_tensors(student, -1.0)
        for other in (teacher, opposite):
            loss, grads = loss_and_gradient(build_objective(make, other), student, other, batch)
            assert loss.dtype == torch.float32, f"loss is {loss.dtype} for {dtype} inputs"
            assert torch.isfinite(loss), f"loss is {loss} at scale {scale} in {dtype}"
            for name, grad in grads.items():
                assert torch.isfinite(grad).all(), (
                    f"gradient of {name} is not finite at scale {scale} in {dtype}"
                )
            if scale == 1 and other is teacher:
                assert any(grad.abs().sum() > 0 for grad in grads.values()), (
                    "no gradient reaches the student"
                )


def _zero_at_match(make: Callable[[], Objective]) -> None:
    objective = make()
    if not objective.card.zero_at_match or not objective.needs["teacher"]:
        return
    student, _, batch = sample_trial(objective)
    loss, _ = loss_and_gradient(build_objective(make, student), student, student, batch)
    assert loss.abs() < 1e-5, (
        f"loss is {loss} for equal outputs of student and teacher. Expected 0, by the card "
        "(zero_at_match)"
    )


def _inputs_untouched(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    before = copy.deepcopy((student, teacher, batch))
    loss_and_gradient(objective, student, teacher, batch)
    for old, new in zip(before, (student, teacher, batch), strict=True):
        for (name, a), (_, b) in zip(named_tensors(old), named_tensors(new), strict=True):
            assert torch.equal(a, b), f"{name} was changed in place"


def _order_of_the_batch(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    trial = sample_trial(objective)
    order = torch.randperm(batch_size(trial[2]), generator=torch.Generator().manual_seed(1))
    loss, grads = loss_and_gradient(objective, *trial)
    permuted_loss, permuted_grads = loss_and_gradient(
        objective, *(select_rows(part, order) for part in trial)
    )
    assert_close(loss, permuted_loss, "the loss depends on the order of the batch")
    for name, grad in grads.items():
        expected = grad[order] if has_sample_axis(name, objective) else grad
        message = f"the gradient of {name} depends on the order of the batch"
        assert_close(expected, permuted_grads[name], message)


def _cut_of_the_batch(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    if objective.couples:
        return
    student, teacher, batch = sample_trial(objective, num_samples=10)
    loss, grads = loss_and_gradient(objective, student, teacher, batch)
    count = objective.num_items(batch)
    total = torch.zeros(())
    part_grads: list[dict[str, Tensor]] = []
    for rows in torch.split(torch.arange(10), [1, 6, 3]):
        part = select_rows(batch, rows)
        value, grad = loss_and_gradient(
            objective, select_rows(student, rows), select_rows(teacher, rows), part
        )
        share = objective.num_items(part) / count
        total = total + value * share
        part_grads.append({name: g * share for name, g in grad.items()})
    message = "depends on how the batch is split"
    assert_close(
        loss, total, f"the loss {message}; a loss that couples its items declares it (couples)"
    )
    for name, whole in grads.items():
        parts = [grad[name] for grad in part_grads]
        has_rows = has_sample_axis(name, objective)
        combined = torch.cat(parts) if has_rows else torch.stack(parts).sum(0)
        assert_close(whole, combined, f"the gradient of {name} {message}")


def _empty_and_single(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    empty = batch | {"valid": torch.zeros(batch_size(batch), dtype=torch.bool)}
    loss, grads = loss_and_gradient(objective, student, teacher, empty)
    assert loss == 0, f"the loss of no items is {loss}, not 0"
    assert all(torch.isfinite(grad).all() for grad in grads.values()), (
        "the gradient of no items is not finite"
    )
    single = torch.tensor([1])
    loss, grads = loss_and_gradient(
        objective, *(select_rows(part, single) for part in (student, teacher, batch))
    )
    assert torch.isfinite(loss), f"the loss of one item is {loss}"
    assert all(torch.isfinite(grad).all() for grad in grads.values()), (
        "the gradient of one item is not finite"
    )


def _layout(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    loss, _ = loss_and_gradient(objective, student, teacher, batch)
    strided, _ = loss_and_gradient(objective, make_strided(student), make_strided(teacher), batch)
    assert_close(loss, strided, "the loss depends on the memory layout")


def _state_moves_after_the_step(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    before = copy.deepcopy(objective.state_dict())
    loss_and_gradient(objective, student, teacher, batch)
    with torch.no_grad():
        updates = objective.state_updates(student, teacher, batch)
    for name, value in objective.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), (
                f"forward or state_updates moved the state '{name}'; only after_step may"
            )
    assert all(len(rows) == batch_size(batch) for rows in updates.values()), (
        "state_updates does not return one row for each sample"
    )
    objective.after_step(updates)


def _parameters_are_seen(make: Callable[[], Objective]) -> None:
    first = build_objective(make)
    second = build_objective(make)
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states), "two builds from one seed differ"
    assert {name for name, _ in first.named_parameters()} <= set(first.state_dict()), (
        "a parameter is missing from the state"
    )
    # Sharding needs at least one dimension.
    assert all(parameter.ndim for parameter in first.parameters()), (
        "a trainable scalar has the shape (). Expected (1,)"
    )


def _loss_falls(make: Callable[[], Objective]) -> None:
    """Check that gradient steps on the student outputs themselves lower the loss."""
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    student = leaves(student)
    objectives = Objectives({"it": objective})
    read = {role: student[role] for role in objective.reads["student"]}
    inputs = [tensor for _, tensor in named_tensors(read) if tensor.requires_grad]
    optimizer = torch.optim.Adam([*inputs, *objective.parameters()], 0.02)
    losses = []
    for _ in range(NUM_STEPS + 1):
        optimizer.zero_grad()
        sides = link_if_needed(objective, student, teacher)
        loss = objectives(*sides, batch).losses["it"]
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0], (
        f"the loss does not fall in {NUM_STEPS} steps on free outputs: "
        f"{losses[0]:.4g} -> {losses[-1]:.4g}"
    )


def _has_adapter(make: Callable[[], Objective]) -> bool:
    return any(True for _ in build_objective(make).parameters())


CONTRACTS: tuple[Callable[[Callable[[], Objective]], None], ...] = (
    _finite_at_extremes,
    _zero_at_match,
    _inputs_untouched,
    _order_of_the_batch,
    _cut_of_the_batch,
    only_counted_items,
    only_counted_positions,
    other_tasks,
    _empty_and_single,
    _layout,
    _state_moves_after_the_step,
    _parameters_are_seen,
    _loss_falls,
    few_classes,
    impossible_class,
    grids_of_the_card,
)
"""Contracts of an objective, in the order of ``check_objective``."""
