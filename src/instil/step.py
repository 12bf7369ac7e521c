"""One step over the global batch, whatever its scheme yields, and the watch over its losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Scheme, Update
from instil.engine import Engine


def train_step(engine: Engine, scheme: Scheme, batches: list[Batch]) -> dict[str, Tensor]:
    """One step over the global batch: its micro-batches advance together, so that accumulation never changes the method.

    Returns this rank's part of each loss, named ``learner/objective``. RuntimeError where micro-batches disagree about the learner, a loss has no
    count (or a count no loss), or a loss is constant.
    """
    with engine.autocast():
        batches = [scheme.before_step(batch) for batch in batches]
    shares = engine.loss_weights([scheme.counts(batch) for batch in batches])
    runs = [scheme.step(batch) for batch in batches]
    parts: dict[str, list[Tensor]] = {}
    kept: dict[str, list[Tensor]] = {}
    turns = dict.fromkeys(shares[0], 0)
    while (update := _advance(engine, runs, shares, turns, parts, kept)) is not None:
        for name in update.losses:
            turns[name] += 1
        engine.step(update.learner)
    if idle := [name for name, turn in turns.items() if turn == 0]:
        raise RuntimeError(
            f"{type(scheme).__name__} counts items of '{idle[0]}', but no update has that loss"
        )
    engine.finish_step(scheme, kept)
    return {name: torch.stack(values).sum() for name, values in parts.items()}


def _advance(
    engine: Engine,
    runs: list[Iterator[Update]],
    shares: list[dict[str, Tensor]],
    turns: dict[str, int],
    parts: dict[str, list[Tensor]],
    kept: dict[str, list[Tensor]],
) -> Update | None:
    """Take every micro-batch to its next update and add up the gradients; None when all are at their end."""
    learners: list[str | tuple[str, ...] | None] = []
    update = None
    for number, run in enumerate(runs):
        with engine.autocast():
            update = next(run, None)
        learners.append(None if update is None else update.learner)
        if learners[number] != learners[0]:
            raise RuntimeError(
                f"micro-batch {number} updates {learners[number]}, micro-batch 0 {learners[0]}; every one must yield the same learners"
            )
        if update is None:
            continue
        share = {}
        for name, loss in update.losses.items():
            if name not in turns:
                raise RuntimeError(
                    f"loss '{name}' has no count: the scheme's counts(batch) must give one for it"
                )
            if not loss.requires_grad:
                raise RuntimeError(
                    f"loss '{name}' is constant: it does not depend on anything that learner '{update.learner}' trains"
                )
            share[name] = shares[number][name][min(turns[name], len(shares[number][name]) - 1)]
            parts.setdefault(
                f"{update.learner if isinstance(update.learner, str) else '+'.join(update.learner)}/{name}",
                [],
            ).append(loss.detach() * share[name])
        engine.backward(update, share, last=number == len(runs) - 1)
        for name, rows in update.state_updates.items():
            kept.setdefault(name, []).append(rows)
    return (
        None
        if update is None
        else Update(dict.fromkeys(update.losses, torch.empty(0)), update.learner)
    )


class NotFiniteError(RuntimeError):
    """A loss that is NaN or infinite.

    Args:
        step: of the training.
        objective: name of the loss.
        value: the loss.
        indices: of the samples of the batch, if it has them.
    """

    def __init__(self, step: int, objective: str, value: float, indices: list[int]):
        rows = ", ".join(map(str, indices[:64])) + (" ..." if len(indices) > 64 else "")
        rows = rows or "unknown (the batch has no 'index')"
        super().__init__(f"step {step}: loss '{objective}' is {value}; batch indices: {rows}")
        self.step, self.objective, self.value, self.indices = step, objective, value, indices


class LossMonitor:
    """Adds up the losses and stops the run where one is not finite; looks one step late, so that the device is never waited for."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self._pending: tuple[Tensor, list[str], int, list[Tensor]] | None = None

    def see(self, losses: dict[str, Tensor], step: int, batches: list[Batch]) -> None:
        """Note the losses of a step; complain about the step before."""
        self.check()
        values = torch.stack(list(losses.values()))
        self._pending = (
            values.to("cpu", non_blocking=True),
            list(losses),
            step,
            [b["index"] for b in batches if "index" in b],
        )
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def check(self) -> None:
        """NotFiniteError with step, objective and batch indices if the last losses seen are not finite."""
        if self._pending is None:
            return
        values, names, step, indices = self._pending
        self._pending = None
        if self.engine.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        finite = torch.isfinite(values)
        if bool(finite.all()):
            return
        name = names[int((~finite).nonzero()[0])]
        rows = torch.cat(indices).tolist() if indices else []
        raise NotFiniteError(step, name, float(values[~finite][0]), rows)

    def state(self) -> dict[str, Any]:
        """This rank's sums since the last call of ``means``, for a checkpoint."""
        self.check()
        return {"sums": {name: sum.cpu() for name, sum in self.sums.items()}, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.sums = {name: sum.to(self.engine.device) for name, sum in state["sums"].items()}
        self.steps = state["steps"]

    def means(self) -> dict[str, float]:
        """The mean loss a step since the last call, over all ranks."""
        self.check()
        if not self.sums:
            return {}
        values = (self.engine.total(torch.stack(list(self.sums.values()))) / self.steps).tolist()
        names, self.sums, self.steps = list(self.sums), {}, 0
        return dict(zip(names, values, strict=True))
