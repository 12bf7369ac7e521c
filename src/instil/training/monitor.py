"""Running sums of the losses of a training, and the error for a loss that is not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instil.core import Batch
from instil.engine import Engine
from instil.engine.processes import sum_over_ranks

MAX_INDICES = 64
"""Number of batch indices that an error message lists."""


class NotFiniteError(RuntimeError):
    """A loss that is NaN or infinite.

    Args:
        step: index of the training step.
        objective: name of the loss.
        value: value of the loss.
        indices: indices of the samples of the batch, if the batch has them.
    """

    def __init__(self, step: int, objective: str, value: float, indices: list[int]):
        rows = ", ".join(map(str, indices[:MAX_INDICES]))
        rows += " ..." if len(indices) > MAX_INDICES else ""
        rows = rows or "unknown (the batch has no 'index')"
        super().__init__(f"step {step}: loss '{objective}' is {value}; batch indices: {rows}")
        self.step = step
        self.objective = objective
        self.value = value
        self.indices = indices


class LossMonitor:
    """Sums of the losses since the last report, and a check that each loss is finite.

    Losses are checked one step late, so that no step waits for the device.

    Args:
        engine: engine of the training; it sums over processes.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self._pending: tuple[Tensor, list[str], int, list[Tensor]] | None = None

    def update(self, losses: dict[str, Tensor], step: int, batches: list[Batch]) -> None:
        """Add the losses of a step and check those of the step before.

        Args:
            losses: this process's part of each loss.
            step: index of the step.
            batches: micro-batches of the step.

        Raises:
            NotFiniteError: if a loss of the step before is not finite.
        """
        self.check()
        values = torch.stack(list(losses.values())).to("cpu", non_blocking=True)
        indices = [batch["index"] for batch in batches if "index" in batch]
        self._pending = values, list(losses), step, indices
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def check(self) -> None:
        """Raise NotFiniteError if a loss of the last update is not finite."""
        if self._pending is None:
            return
        values, names, step, indices = self._pending
        self._pending = None
        if self.engine.device.type == "cuda":
            # The copy to the CPU does not block; its values are valid after this.
            torch.cuda.current_stream().synchronize()
        finite = torch.isfinite(values)
        if bool(finite.all()):
            return
        name = names[int((~finite).nonzero()[0])]
        rows = torch.cat(indices).tolist() if indices else []
        raise NotFiniteError(step, name, float(values[~finite][0]), rows)

    def state(self) -> dict[str, Any]:
        """Sums of this process since the last call of ``means``, for a checkpoint."""
        self.check()
        return {"sums": {name: sum.cpu() for name, sum in self.sums.items()}, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.sums = {name: sum.to(self.engine.device) for name, sum in state["sums"].items()}
        self.steps = state["steps"]

    def means(self) -> dict[str, float]:
        """Mean of each loss per step since the last call, over all processes."""
        self.check()
        if not self.sums:
            return {}
        sums = sum_over_ranks(torch.stack(list(self.sums.values())))
        means = dict(zip(self.sums, (sums / self.steps).tolist(), strict=True))
        self.sums = {}
        self.steps = 0
        return means
