"""What a scheme promises."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.capabilities import SynthesizesImages
from instil.core import Batch, Net, Outputs, Scheme, Teacher, batch_size, item_weights
from instil.engine import Engine, Optimization
from instil.roles import SHARED_ROLES
from instil.testing.samples import select_rows, tensors
from instil.training.step import train_step


def check_scheme(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    """Every contract of a scheme (without dropout, BatchNorm and coupled objectives); AssertionError names the one that is broken.

    ``batches(step)`` gives at least 16 samples a step.
    """
    for contract in (
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
    make: Callable[[], Scheme],
    batches: Callable[[int], Batch],
    steps: int,
    cut: tuple[int, ...] = (),
    start: int = 0,
    resume: Path | None = None,
) -> tuple[Scheme, Engine, list[dict[str, float]]]:
    torch.manual_seed(0)
    scheme = make()
    scheme.train().prepare(batches(0))
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.05, "momentum": 0.9}))
    if resume is not None:
        engine.load(scheme, resume)
    losses = []
    for step in range(start, steps):
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


def _same_for_any_cut(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    whole, pieces = (
        _run(make, batches, 5)[0].state_dict(),
        _run(make, batches, 5, (7, 1, 4))[0].state_dict(),
    )
    for name, tensor in whole.items():
        assert (tensor - pieces[name]).abs().max() < 1e-5, (
            f"'{name}' depends on how the batch is cut into micro-batches"
        )


def _each_learner_moves_in_its_own_update(
    make: Callable[[], Scheme], batches: Callable[[int], Batch]
) -> None:
    scheme, engine, _ = _run(make, batches, 0)
    clock = {"step": torch.tensor(0), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    batch = scheme.before_step(batches(0) | clock)
    assert all(parameter.grad is None for parameter in scheme.parameters()), (
        "before_step left a gradient behind"
    )
    shares = engine.loss_weights([scheme.counts(batch)])[0]
    updated: set[str] = set()
    before = copy.deepcopy(scheme.state_dict())
    for update in scheme.step(batch):
        names = (update.learner,) if isinstance(update.learner, str) else update.learner
        for name in update.losses:
            assert name in shares, f"loss '{name}' has no count"
        engine.backward(update, {name: shares[name][0] for name in update.losses}, last=True)
        _unmoved(scheme, before, "step changed the state; only after_step and the optimizers may")
        engine.step(update.learner)
        moved = {id(parameter) for name in names for parameter in engine.parameters[name]}
        for path, parameter in scheme.named_parameters():
            if id(parameter) not in moved:
                assert torch.equal(parameter, before[path]), (
                    f"'{path}' moved in an update of {names}"
                )
        before, updated = copy.deepcopy(scheme.state_dict()), updated | set(names)
    assert updated == set(scheme.learners), (
        f"learners {sorted(set(scheme.learners) - updated)} are never updated"
    )


def _unmoved(scheme: Scheme, before: dict[str, Tensor], message: str) -> None:
    for name, tensor in scheme.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(tensor, before[name]), f"{message}: '{name}'"


def _nothing_held_across_a_yield(
    make: Callable[[], Scheme], batches: Callable[[int], Batch]
) -> None:
    scheme = _run(make, batches, 0)[0]
    clock = {"step": torch.tensor(0), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    run: Any = scheme.step(scheme.before_step(batches(0) | clock))
    for _ in run:
        held = [
            name
            for name, value in run.gi_frame.f_locals.items()
            if any(tensor.grad_fn is not None for tensor in tensors(value))
        ]
        assert scheme.card.holds_graph or not held, (
            f"'{held[0]}' is held across a yield; say holds_graph on the card, or compute it again"
        )


def _resumes_exactly(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    whole = _run(make, batches, 6)[0].state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        scheme, engine, _ = _run(make, batches, 3)
        engine.save(scheme, path, {})
        again = _run(make, batches, 6, start=3, resume=path)[0].state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), f"'{name}' differs after a resume from the middle"


def _learns(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    losses = _run(make, lambda step: batches(0), 30)[2]
    own = [
        sum(value for name, value in record.items() if name.startswith("student/"))
        for record in losses
    ]
    assert min(own[-5:]) < own[1] or own[1] == 0, (
        f"the student's loss does not fall on one repeated batch: {own[1]:.4g} -> {own[-1]:.4g}"
    )


def _teachers_get_no_gradient(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    for name, part in _run(make, batches, 2)[0].named_modules():
        if isinstance(part, Teacher):
            assert all(parameter.grad is None for parameter in part.parameters()), (
                f"a gradient leaked into teacher '{name}'"
            )


def _uncounted_samples_change_nothing(
    make: Callable[[], Scheme], batches: Callable[[int], Batch]
) -> None:
    """Invalid samples whose outputs are not finite do not change the trained state.

    Schemes that make their images are left out: none of their items is invalid.
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
        poisoned = functools.partial(_poisoned, make, poison)
        state = _run(poisoned, masked, 2)[0].state_dict()
        for name, tensor in expected.items():
            assert torch.allclose(tensor, state[name], rtol=0, atol=1e-5), (
                f"'{name}' changes with an invalid sample whose outputs are {poison}"
            )


def _poisoned(make: Callable[[], Scheme], poison: float) -> Scheme:
    """Add ``poison`` to the outputs of every network at invalid samples, after the dry run.

    Gradients pass the sum unchanged, so that a gradient that is not 0 reaches the network.
    """
    scheme = make()

    def hook(module: nn.Module, arguments: tuple[Any, ...], outputs: Outputs) -> Outputs:
        batch: Batch = arguments[0]
        if "valid" not in batch or not scheme.prepared:
            return outputs
        invalid = item_weights(batch) <= 0
        invalid = invalid.flatten(1).all(1) if invalid.ndim > 1 else invalid

        def changed(value: Any, role: str = "") -> Any:
            if isinstance(value, tuple):
                return tuple(changed(part) for part in value)
            if (
                role in SHARED_ROLES
                or not isinstance(value, Tensor)
                or not value.is_floating_point()
            ):
                return value
            if value.shape[:1] != invalid.shape:
                return value
            added = torch.zeros(len(value), dtype=value.dtype).masked_fill(invalid, poison)
            return value + added.view(-1, *[1] * (value.ndim - 1))

        return {role: changed(value, role) for role, value in outputs.items()}

    for part in scheme.modules():
        if isinstance(part, Net):
            part.register_forward_hook(hook)
    return scheme


def _exports_a_net(make: Callable[[], Scheme], batches: Callable[[int], Batch]) -> None:
    exported = _run(make, batches, 1)[0].export()
    assert isinstance(exported, Net), f"export gives a {type(exported).__name__}, not a Net"
