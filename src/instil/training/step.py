"""One training step over the global batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Scheme, Update
from instil.engine import Engine


def train_step(engine: Engine, scheme: Scheme, batches: list[Batch]) -> dict[str, Tensor]:
    """Run one step of a scheme over the micro-batches of the global batch.

    The micro-batches advance together, from one optimizer step to the next, so that accumulation
    never changes the method.

    Args:
        engine: engine on which ``setup`` was called with the scheme.
        scheme: the scheme.
        batches: micro-batches of this process.

    Returns:
        This process's part of each loss, named ``learner/objective``.

    Raises:
        ValueError: if the scheme's ``step`` is not a generator of updates.
        RuntimeError: if micro-batches yield different learners, a loss has no count, a count has no
            loss, or a loss does not depend on the learner.
    """
    scheme.set_progress(batches[0])
    with engine.autocast():
        batches = [scheme.before_step(batch) for batch in batches]
    weights = engine.loss_weights([scheme.counts(batch) for batch in batches])
    runs = [_updates(scheme, batch) for batch in batches]
    progress = _Progress(weights)
    while (update := _advance(engine, runs, progress)) is not None:
        for name in update.losses:
            progress.num_updates[name] += 1
        engine.step(update.learner)
    if idle := [name for name, count in progress.num_updates.items() if count == 0]:
        raise RuntimeError(
            f"{type(scheme).__name__} counts items of '{idle[0]}', but no update has that loss"
        )
    engine.finish_step(scheme, progress.state_rows)
    return {name: torch.stack(values).sum() for name, values in progress.parts.items()}


def _updates(scheme: Scheme, batch: Batch) -> Iterator[Update]:
    """Return the generator of a step."""
    updates: Any = scheme.step(batch)
    if not isinstance(updates, Iterator):
        raise ValueError(
            f"{type(scheme).__name__}.step: Expected a generator of updates, got "
            f"{type(updates).__name__}. Write yield in place of return"
        )
    return updates


@dataclass
class _Progress:
    """State of a step between its optimizer steps."""

    weights: list[dict[str, Tensor]]  # of each micro-batch: loss -> one weight per update
    num_updates: dict[str, int] = field(init=False)  # loss -> updates so far
    parts: dict[str, list[Tensor]] = field(default_factory=dict)
    state_rows: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_updates = dict.fromkeys(self.weights[0], 0)

    def weight(self, index: int, name: str) -> Tensor:
        """Weight of a loss of micro-batch ``index`` in its current update."""
        weights = self.weights[index][name]
        return weights[min(self.num_updates[name], len(weights) - 1)]

    def add(self, index: int, update: Update) -> dict[str, Tensor]:
        """Record the losses and rows of an update and return the weight of each loss."""
        learner = update.learner if isinstance(update.learner, str) else "+".join(update.learner)
        weights = {}
        for name, loss in update.losses.items():
            self._check(name, loss, update)
            weights[name] = self.weight(index, name)
            self.parts.setdefault(f"{learner}/{name}", []).append(loss.detach() * weights[name])
        return weights

    def _check(self, name: str, loss: Tensor, update: Update) -> None:
        if name not in self.num_updates:
            raise RuntimeError(
                f"loss '{name}' has no count: the scheme's counts(batch) must give one for it"
            )
        if not loss.requires_grad:
            raise RuntimeError(
                f"loss '{name}' is constant: it does not depend on anything that learner "
                f"'{update.learner}' trains"
            )


def _advance(engine: Engine, runs: list[Iterator[Update]], progress: _Progress) -> Update | None:
    """Run each micro-batch to its next update and add its gradients; None at the end of all."""
    learners: list[str | tuple[str, ...] | None] = []
    update = None
    for index, run in enumerate(runs):
        with engine.autocast():
            update = next(run, None)
        _check_type(update)
        learners.append(None if update is None else update.learner)
        if learners[index] != learners[0]:
            raise RuntimeError(
                f"micro-batch {index} updates {learners[index]}, micro-batch 0 {learners[0]}; "
                "every one must yield the same learners"
            )
        if update is None:
            continue
        weights = progress.add(index, update)
        engine.backward(update, weights, last=index == len(runs) - 1)
        for name, rows in update.state_updates.items():
            progress.state_rows.setdefault(name, []).append(rows)
    if update is None:
        return None
    # Without the graph of the last micro-batch, which would stay in memory until the next update.
    return Update(dict.fromkeys(update.losses, torch.empty(0)), update.learner)


def _check_type(update: Any) -> None:
    if update is not None and not isinstance(update, Update):
        raise ValueError(
            "step: Expected each yield to be an Update, such as that of compute_losses, got "
            f"{type(update).__name__}"
        )
