"""Contracts of schemes."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from instil.capabilities import SynthesizesImages
from instil.core import Batch, Net, Scheme, Teacher, batch_size, item_weights
from instil.engine import Engine, Optimization
from instil.testing.poisoned_outputs import poisoned
from instil.testing.structures import select_rows, tensors
from instil.training.step import train_step

MakeScheme = Callable[[], Scheme]
Batches = Callable[[int], Batch]
"""Step -> batch."""


def check_scheme(make: MakeScheme, batches: Batches) -> None:
    """Check all contracts of a scheme without dropout, BatchNorm and coupled objectives.

    Args:
        make: returns a new scheme.
        batches: step -> batch of at least 16 samples.

    Raises:
        AssertionError: for the first broken contract, with its name.
    """
    for contract in (
        _selects_teacher_roles_once,
        _same_for_any_cut,
        _each_learner_moves_in_its_own_update,
        _nothing_held_across_a_yield,
        _resumes_exactly,
        _learns,
        _teachers_get_no_gradient,
        _uncounted_samples_change_nothing,
        _exports_a_net,
    ):
        try:
            contract(make, batches)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise AssertionError(
                f"{contract.__name__.strip('_').replace('_', ' ')}: {error}"
            ) from error


def _run(
    make: MakeScheme,
    batches: Batches,
    num_steps: int,
    cut: tuple[int, ...] = (),
    start: int = 0,
    resume: Path | None = None,
) -> tuple[Scheme, Engine, list[dict[str, float]]]:
    """Train a new scheme from one seed; ``cut``: sizes of the first micro-batches."""
    torch.manual_seed(0)
    scheme = make()
    scheme.train().prepare(batches(0))
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.05, "momentum": 0.9}))
    if resume is not None:
        engine.load(scheme, resume)
    losses = []
    for step in range(start, num_steps):
        whole = batches(step)
        rows = torch.split(torch.arange(batch_size(whole)), [*cut, batch_size(whole) - sum(cut)])
        clock = {
            "step": torch.tensor(step),
            "progress": torch.tensor(step / 100),
            "seed": torch.tensor(0),
            "epoch_ends": torch.tensor(step % 2 == 1),
        }
        parts = train_step(engine, scheme, [select_rows(whole, part) | clock for part in rows])
        losses.append({name: float(value) for name, value in parts.items()})
    return scheme, engine, losses


def _first_batch(scheme: Scheme, batches: Batches) -> Batch:
    clock = {"step": torch.tensor(0), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    return scheme.before_step(batches(0) | clock)


def _selects_teacher_roles_once(make: MakeScheme, batches: Batches) -> None:
    """Check that the teacher computes ``teacher_roles``, the roles that are recorded."""
    scheme = make()
    if scheme.teacher is None or scheme.prepared:
        return
    with mock.patch.object(
        scheme.teacher, "select_roles", wraps=scheme.teacher.select_roles
    ) as select_roles:
        scheme.prepare(batches(0))
    selected = [set(call.args[0]) for call in select_roles.call_args_list]
    assert selected in ([], [scheme.teacher_roles()]), (
        f"build selects the roles {selected}. Expected at most one selection, of teacher_roles: "
        f"{scheme.teacher_roles()}"
    )


def _same_for_any_cut(make: MakeScheme, batches: Batches) -> None:
    whole = _run(make, batches, 5)[0].state_dict()
    split = _run(make, batches, 5, (7, 1, 4))[0].state_dict()
    for name, tensor in whole.items():
        assert (tensor - split[name]).abs().max() < 1e-5, (
            f"'{name}' depends on how the batch is split into micro-batches"
        )


def _each_learner_moves_in_its_own_update(make: MakeScheme, batches: Batches) -> None:
    scheme, engine, _ = _run(make, batches, 0)
    batch = _first_batch(scheme, batches)
    assert all(parameter.grad is None for parameter in scheme.parameters()), (
        "before_step leaves a gradient"
    )
    weights = engine.loss_weights([scheme.counts(batch)])[0]
    updated: set[str] = set()
    before = copy.deepcopy(scheme.state_dict())
    for update in scheme.step(batch):
        names = (update.learner,) if isinstance(update.learner, str) else update.learner
        for name in update.losses:
            assert name in weights, f"loss '{name}' has no count"
        engine.backward(update, {name: weights[name][0] for name in update.losses}, last=True)
        _check_unmoved(scheme, before)
        engine.step(update.learner)
        _check_only_moved(scheme, before, engine, names)
        before = copy.deepcopy(scheme.state_dict())
        updated |= set(names)
    assert updated == set(scheme.learners), (
        f"learners {sorted(set(scheme.learners) - updated)} are never updated"
    )


def _check_unmoved(scheme: Scheme, before: dict[str, Tensor]) -> None:
    for name, tensor in scheme.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(tensor, before[name]), (
                f"step changed the state '{name}'; only after_step and the optimizers may"
            )


def _check_only_moved(
    scheme: Scheme, before: dict[str, Tensor], engine: Engine, names: tuple[str, ...]
) -> None:
    """Check that an optimizer step changed parameters of these learners only."""
    moved: set[int] = set()
    for name in names:
        moved |= {id(parameter) for parameter in engine.parameters[name]}
    for path, parameter in scheme.named_parameters():
        if id(parameter) not in moved:
            assert torch.equal(parameter, before[path]), f"'{path}' moved in an update of {names}"


def _nothing_held_across_a_yield(make: MakeScheme, batches: Batches) -> None:
    scheme = _run(make, batches, 0)[0]
    steps: Any = scheme.step(_first_batch(scheme, batches))
    for _ in steps:
        # Local variables of the suspended generator keep their graphs in memory.
        held = [
            name
            for name, value in steps.gi_frame.f_locals.items()
            if any(tensor.grad_fn is not None for tensor in tensors(value))
        ]
        assert scheme.card.holds_graph or not held, (
            f"'{held[0]}' is held across a yield; set holds_graph on the card, or compute it again"
        )


def _resumes_exactly(make: MakeScheme, batches: Batches) -> None:
    expected = _run(make, batches, 6)[0].state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        scheme, engine, _ = _run(make, batches, 3)
        engine.save(scheme, path, {})
        resumed = _run(make, batches, 6, start=3, resume=path)[0].state_dict()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), f"'{name}' differs after a resumed training"


def _learns(make: MakeScheme, batches: Batches) -> None:
    losses = []
    for record in _run(make, lambda step: batches(0), 30)[2]:
        losses.append(sum(value for name, value in record.items() if name.startswith("student/")))
    # Step 1, since memories may be empty at step 0.
    assert min(losses[-5:]) < losses[1] or losses[1] == 0, (
        f"the student's loss does not fall on one repeated batch: {losses[1]:.4g} -> "
        f"{losses[-1]:.4g}"
    )


def _teachers_get_no_gradient(make: MakeScheme, batches: Batches) -> None:
    for name, part in _run(make, batches, 2)[0].named_modules():
        if isinstance(part, Teacher):
            assert all(parameter.grad is None for parameter in part.parameters()), (
                f"teacher '{name}' has a gradient"
            )


def _uncounted_samples_change_nothing(make: MakeScheme, batches: Batches) -> None:
    """Check that invalid samples with NaN or infinite outputs do not change the trained state.

    Schemes that generate images are excluded: all of their items are valid.
    """
    if isinstance(make(), SynthesizesImages):
        return

    def masked(step: int) -> Batch:
        batch = batches(step)
        shape = batch["valid"].shape if "valid" in batch else (batch_size(batch),)
        valid = torch.ones(shape, dtype=torch.bool)
        valid[2::3] = False
        return batch | {"valid": valid & (item_weights(batch) > 0)}

    expected = _run(make, masked, 2)[0].state_dict()
    for poison in (torch.nan, torch.inf):
        make_poisoned = functools.partial(poisoned, make, poison)
        state = _run(make_poisoned, masked, 2)[0].state_dict()
        for name, tensor in expected.items():
            assert torch.allclose(tensor, state[name], rtol=0, atol=1e-5), (
                f"'{name}' changes with an invalid sample whose outputs are {poison}"
            )


def _exports_a_net(make: MakeScheme, batches: Batches) -> None:
    exported = _run(make, batches, 1)[0].export()
    assert isinstance(exported, Net), f"export returns a {type(exported).__name__}, not a Net"
