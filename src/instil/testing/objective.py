"""What an objective promises."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Objective, Objectives, batch_size
from instil.testing.classes import few_classes, impossible_class
from instil.testing.samples import (
    assert_close,
    leaves,
    link_if_needed,
    make_strided,
    named_tensors,
    scale_tensors,
    select_rows,
)
from instil.testing.trials import build_objective, has_sample_axis, loss_and_gradient, sample_trial
from instil.testing.uncounted import only_counted_items, only_counted_positions, other_tasks


def check_objective(make: Callable[[], Objective]) -> None:
    """Every contract of an objective that ``make`` builds with its options; AssertionError names the one that is broken."""
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
        student, teacher = scale_tensors(student, scale), scale_tensors(teacher, scale)
        for other in (teacher, scale_tensors(student, -1.0) if not _adapts(make) else teacher):
            loss, grads = loss_and_gradient(build_objective(make, other), student, other, batch)
            assert loss.dtype == torch.float32, f"loss is {loss.dtype} for {dtype} inputs"
            assert torch.isfinite(loss), f"loss is {loss} at scale {scale} in {dtype}"
            for name, grad in grads.items():
                assert torch.isfinite(grad).all(), (
                    f"gradient of {name} is not finite at scale {scale} in {dtype}"
                )
            if scale == 1 and other is teacher:
                assert any(grad.abs().sum() > 0 for name, grad in grads.items()), (
                    "no gradient reaches the student"
                )


def _zero_at_match(make: Callable[[], Objective]) -> None:
    objective = make()
    if not objective.card.zero_at_match or not objective.needs["teacher"]:
        return
    student, _, batch = sample_trial(objective)
    loss, _ = loss_and_gradient(build_objective(make, student), student, student, batch)
    assert loss.abs() < 1e-5, (
        f"loss is {loss} where student and teacher say the same; the card says it is zero (zero_at_match)"
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
    student, teacher, batch = sample_trial(objective)
    order = torch.randperm(batch_size(batch), generator=torch.Generator().manual_seed(1))
    loss, grads = loss_and_gradient(objective, student, teacher, batch)
    again, moved = loss_and_gradient(
        objective, *(select_rows(part, order) for part in (student, teacher, batch))
    )
    assert_close(loss, again, "the loss depends on the order of the batch")
    for name, grad in grads.items():
        assert_close(
            grad[order] if has_sample_axis(name, objective) else grad,
            moved[name],
            f"the gradient of {name} depends on the order of the batch",
        )


def _cut_of_the_batch(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    if objective.couples:
        return
    student, teacher, batch = sample_trial(objective, number=10)
    loss, grads = loss_and_gradient(objective, student, teacher, batch)
    count = objective.num_items(batch)
    total = torch.zeros(())
    parts: list[dict[str, Tensor]] = []
    for rows in torch.split(torch.arange(10), [1, 6, 3]):
        piece = select_rows(batch, rows)
        value, grad = loss_and_gradient(
            objective, select_rows(student, rows), select_rows(teacher, rows), piece
        )
        share = objective.num_items(piece) / count
        total = total + value * share
        parts.append({name: g * share for name, g in grad.items()})
    assert_close(
        loss,
        total,
        "the loss depends on how the batch is cut; a loss that couples its items says so (couples)",
    )
    for name, whole in grads.items():
        cut = [part[name] for part in parts]
        assert_close(
            whole,
            torch.cat(cut) if has_sample_axis(name, objective) else torch.stack(cut).sum(0),
            f"the gradient of {name} depends on how the batch is cut",
        )


def _empty_and_single(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    nothing = batch | {"valid": torch.zeros(batch_size(batch), dtype=torch.bool)}
    loss, grads = loss_and_gradient(objective, student, teacher, nothing)
    assert loss == 0, f"the loss of no items is {loss}, not 0"
    assert all(torch.isfinite(grad).all() for grad in grads.values()), (
        "the gradient of no items is not finite"
    )
    one = torch.tensor([1])
    loss, grads = loss_and_gradient(
        objective, *(select_rows(part, one) for part in (student, teacher, batch))
    )
    assert torch.isfinite(loss), f"the loss of one item is {loss}"
    assert all(torch.isfinite(grad).all() for grad in grads.values()), (
        "the gradient of one item is not finite"
    )


def _layout(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    loss, _ = loss_and_gradient(objective, student, teacher, batch)
    again, _ = loss_and_gradient(objective, make_strided(student), make_strided(teacher), batch)
    assert_close(loss, again, "the loss depends on the memory layout")


def _state_moves_after_the_step(make: Callable[[], Objective]) -> None:
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    before = copy.deepcopy(objective.state_dict())
    loss_and_gradient(objective, student, teacher, batch)
    with torch.no_grad():
        kept = objective.state_updates(student, teacher, batch)
    for name, value in objective.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name]), (
                f"forward or keep moved the state '{name}'; only after_step may"
            )
    assert all(len(rows) == batch_size(batch) for rows in kept.values()), (
        "keep returns one row for every sample"
    )
    objective.after_step(kept)


def _parameters_are_seen(make: Callable[[], Objective]) -> None:
    objective, other = build_objective(make), build_objective(make)
    assert all(
        torch.equal(a, b)
        for a, b in zip(objective.state_dict().values(), other.state_dict().values(), strict=True)
    ), "two builds from one seed differ"
    assert {name for name, _ in objective.named_parameters()} <= set(objective.state_dict()), (
        "a parameter is missing from the state"
    )
    assert all(parameter.ndim for parameter in objective.parameters()), (
        "a learned scalar has shape (1,), not ()"
    )


def _loss_falls(make: Callable[[], Objective]) -> None:
    """Gradient steps on the student's own outputs bring the loss down."""
    objective = build_objective(make)
    student, teacher, batch = sample_trial(objective)
    student = leaves(student)
    objectives = Objectives({"it": objective})
    tensors = [
        tensor
        for _, tensor in named_tensors({role: student[role] for role in objective.reads["student"]})
    ]
    optimizer = torch.optim.Adam([*tensors, *objective.parameters()], 0.02)
    losses = []
    for _ in range(21):
        optimizer.zero_grad()
        loss = objectives(*link_if_needed(objective, student, teacher), batch).losses["it"]
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0], (
        f"the loss does not fall in 20 steps on free outputs: {losses[0]:.4g} -> {losses[-1]:.4g}"
    )


def _adapts(make: Callable[[], Objective]) -> bool:
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
)
"""The contracts of an objective, in the order in which ``check_objective`` runs them."""
