"""Several objectives as one module, and the update that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from instil.core.batch import SHARED_ROLES, Batch, Outputs, first, full, mean, nothing
from instil.core.card import Schedule, at_progress, closest
from instil.core.objective import LabelObjective, Objective


@dataclass
class Update:
    """One optimizer step of ``learner`` (or of several: one loss, several optimizers) on these losses, each the mean over its own items."""

    losses: dict[str, Tensor]
    learner: str | tuple[str, ...] = "student"
    keep: dict[str, Tensor] = field(default_factory=dict)


Gather = Callable[[Tensor], Tensor]


class Objectives(nn.ModuleDict):
    """Named, weighted objectives as one module; takes the weighted means, so that no objective does.

    ``weights`` are numbers or schedules (1 where none is given); an option of an objective may be a schedule too.
    An objective that couples its items gets the counted items of all ranks, flat, and of the batch only what belongs to items.
    """

    ITEM_KEYS = ("label", "index", "view")

    def __init__(self, objectives: Mapping[str, Objective], weights: Mapping[str, float | Schedule] | None = None):
        super().__init__()
        self.weights: dict[str, float | Schedule] = {**dict.fromkeys(objectives, 1.0), **(weights or {})}
        if unknown := sorted(set(self.weights) - set(objectives)):
            raise ValueError(f"a weight for '{unknown[0]}', which is no objective here; {closest(unknown[0], objectives)}")
        self.schedules = {n: {k: v for k, v in vars(o).items() if isinstance(v, Schedule)} for n, o in objectives.items()}
        for name, schedules in self.schedules.items():
            for option, schedule in schedules.items():
                setattr(objectives[name], option, schedule.start)  # what adapters are built with
        self.gather: Gather | None = None  # set by the engine where there are several ranks
        for name in objectives:
            if not name or "." in name or hasattr(self, name):
                raise ValueError(f"objectives.{name}: this cannot be the name of an objective; give it another one, and say the method with type")
        self.update(objectives)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Resolve what every objective reads and make its adapters."""
        for name, objective in self.named():
            try:
                objective.resolve(student, teacher)
                objective.build(student, teacher)
            except ValueError as error:
                raise ValueError(f"objectives.{name}: {error}") from error

    def reads(self, side: str) -> set[str]:
        """All roles that are read of ``side``."""
        return {role for _, objective in self.named() for role in objective.reads.get(side, ())}

    @property
    def differentiates(self) -> bool:
        """Whether an objective reads ``input``, by which it takes gradients."""
        return "input" in self.reads("student") | self.reads("teacher")

    def leaf(self, batch: Batch) -> Batch:
        """The batch's first tensor as a leaf that gradients reach, under its key, where an objective reads ``input``; else nothing."""
        if not self.differentiates:
            return {}
        key, value = next((key, value) for key, value in batch.items() if value is first(batch))
        if not value.is_floating_point():
            raise ValueError(f"an objective reads the gradient by the input, but '{key}', the batch's first tensor, is {value.dtype}")
        return {key: value.detach().requires_grad_()}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, learner: str | tuple[str, ...] = "student") -> Update:
        """The update of ``learner`` on the weighted mean of every objective."""
        losses, kept = {}, {}
        student, teacher = self._raised("student", student), self._raised("teacher", teacher)
        for name, objective in self.named():
            for option, schedule in self.schedules[name].items():
                setattr(objective, option, schedule.at(float(batch.get("progress", 0.0))))
            take = self._coupled if objective.card.couples else self._mean
            with torch.autocast(first(batch).device.type, enabled=False):
                losses[name] = at_progress(self.weights[name], batch) * take(objective, student, teacher, batch)
                with torch.no_grad():
                    kept.update({f"{name}.{row}": value for row, value in objective.keep(student, teacher, batch).items()})
        return Update(losses, learner, kept)

    def _raised(self, side: str, outputs: Outputs) -> Outputs:
        """The outputs with what is read of them in float32 or better, so that no objective computes in half precision."""

        def raised(value: Any) -> Any:
            return tuple(map(raised, value)) if isinstance(value, tuple) else full(value) if isinstance(value, Tensor) else value

        return outputs | {role: raised(outputs[role]) for role in self.reads(side) if role in outputs}

    @staticmethod
    def _mean(objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return mean(objective(student, teacher, batch), objective.weight(batch))

    def _coupled(self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the counted items of all ranks together; zero where nothing counts anywhere."""
        counted = objective.weight(batch) > 0
        picks = "valid" in batch or isinstance(objective, LabelObjective)  # else every item counts, and asking would wait for the device

        def collect(value: Any, role: str = "") -> Any:
            if role in SHARED_ROLES:
                return value
            if isinstance(value, tuple):
                return tuple(collect(part) for part in value)
            if picks:
                value = value[counted if value.shape[: counted.ndim] == counted.shape else counted.flatten(1).any(1)]
            return value if self.gather is None else self.gather(value)

        mine = {role: collect(student[role], role) for role in objective.reads["student"]}
        theirs = {role: collect(teacher[role], role) for role in objective.reads["teacher"]}
        items: Batch = {key: collect(batch[key]) for key in self.ITEM_KEYS if key in batch}
        clock = {key: batch[key] for key in ("step", "progress", "seed") if key in batch}
        anchor = next(value for role, value in mine.items() if role not in SHARED_ROLES)
        if not len(anchor[0] if isinstance(anchor, tuple) else anchor):
            return nothing(mine, mine)
        loss: Tensor = objective(mine, theirs, items | clock)
        return loss

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """How many items stand behind each loss."""
        return {name: objective.weight(batch).sum() for name, objective in self.named()}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """Hand every objective its own rows."""
        for name, objective in self.named():
            objective.after_step({key[len(name) + 1 :]: rows for key, rows in kept.items() if key.startswith(name + ".")})

    def named(self) -> Iterator[tuple[str, Objective]]:
        """Name and objective, in order."""
        for name, objective in self.items():
            assert isinstance(objective, Objective)
            yield name, objective
