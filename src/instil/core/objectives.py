"""Several objectives as one module, and the update that they make."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core.batch import (
    SHARED_ROLES,
    Batch,
    Outputs,
    first_tensor,
    graph_preserving_zero,
    item_weights,
    mean,
    to_float32,
)
from instil.core.card import Card, Schedule, at_progress, closest
from instil.core.keywords import ClearKeywords
from instil.core.objective import LabelObjective, Objective, RoleConsumer, Weighting
from instil.core.uncounted import replace_in_batch, replace_in_outputs


@dataclass
class Update:
    """One optimizer step of ``learner`` (or of several: one loss, several optimizers) on these losses, each the mean over its own items."""

    losses: dict[str, Tensor]
    learner: str | tuple[str, ...] = "student"
    state_updates: dict[str, Tensor] = field(default_factory=dict)


Gather = Callable[[Tensor], Tensor]


class Balance(ClearKeywords, nn.Module):
    """Moves the weights of several losses while they are trained; options are kept as attributes of the same name."""

    card: ClassVar[Card]
    needs_input_grad: ClassVar[bool] = False  # it takes gradients inside the student's graph

    def build(self, couples: Mapping[str, bool]) -> None:
        """Make what it learns or keeps, once: the names of the losses, and which of them couple the batch."""

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The balanced losses, and rows for ``after_step``; ``counts`` are this micro-batch's items behind each loss."""
        raise NotImplementedError

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The only place where its buffers move."""


class Objectives(nn.ModuleDict):
    """Named, weighted objectives as one module; takes the weighted means, so that no objective does.

    ``weights`` are numbers or schedules (1 where none is given); an option of an objective may be a schedule too. ``sample_weights`` weigh the
    items of objectives that do not couple them; ``balance`` moves the weights of all.
    An objective that couples its items gets the counted items of all ranks, flat, and of the batch only what belongs to items.
    """

    ITEM_KEYS = ("label", "index", "view")

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        weights: Mapping[str, float | Schedule] | None = None,
        sample_weights: Mapping[str, Weighting] | None = None,
        balance: Balance | None = None,
    ):
        super().__init__()
        self.weights: dict[str, float | Schedule] = {
            **dict.fromkeys(objectives, 1.0),
            **(weights or {}),
        }
        if unknown := sorted((set(self.weights) | set(sample_weights or ())) - set(objectives)):
            raise ValueError(
                f"a weight for '{unknown[0]}', which is no objective here; {closest(unknown[0], objectives)}"
            )
        self.balance: Balance | None = None
        self.gather: Gather | None = None  # set by the engine where there are several ranks
        self.missing_role_hint: str | None = None  # set by the scheme: the teacher's
        self.student_modules = ""  # set by the scheme: what the student taps could name
        for name in objectives:
            if not name or "." in name or hasattr(self, name):
                raise ValueError(
                    f"objectives.{name}: this cannot be the name of an objective; give it another one, and say the method with type"
                )
        for name, weighting in (sample_weights or {}).items():
            if objectives[name].couples:
                raise ValueError(
                    f"objectives.{name}: {type(objectives[name]).__name__} has one loss for the batch; its samples have no weights"
                )
            objectives[name].sample_weight = weighting
        self.update(objectives)
        self.balance = balance
        self.schedules = [
            (part, k, v)
            for part in self.modules()
            for k, v in vars(part).items()
            if isinstance(v, Schedule)
        ]
        for part, option, schedule in self.schedules:
            setattr(part, option, schedule.start)  # what adapters are built with

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Resolve what every objective reads and make its adapters."""
        if self.balance is not None:
            self.balance.build({name: objective.couples for name, objective in self.named()})
        for name, objective in self.named():
            try:
                objective.resolve(student, teacher, self.missing_role_hint)
                if objective.sample_weight is not None:
                    objective.sample_weight.resolve(student, teacher, self.missing_role_hint)
                objective.build(student, teacher)
            except ValueError as error:
                where = f". {self.student_modules}" if "student taps" in str(error) else ""
                raise ValueError(f"objectives.{name}: {error}{where}") from error

    def reads(self, side: str) -> set[str]:
        """All roles that are read of ``side``."""
        return _roles_read(self, side)

    @property
    def needs_input_grad(self) -> bool:
        """Whether an objective reads ``input``, by which it takes gradients."""
        return "input" in self.reads("student") | self.reads("teacher")

    def requires_double_backward(self) -> list[str]:
        """What takes gradients before the backward pass, which nets cut in pieces cannot give."""
        found = [
            f"objectives.{name}" for name, objective in self.named() if objective.needs_input_grad
        ]
        return (
            [*found, "balance"]
            if self.balance is not None and self.balance.needs_input_grad
            else found
        )

    def input_leaf(self, batch: Batch) -> Batch:
        """The batch's first tensor as a leaf that gradients reach, under its key, where an objective reads ``input``; else nothing."""
        if not self.needs_input_grad:
            return {}
        key, value = next(
            (key, value) for key, value in batch.items() if value is first_tensor(batch)
        )
        if not value.is_floating_point():
            raise ValueError(
                f"an objective reads the gradient by the input, but '{key}', the batch's first tensor, is {value.dtype}"
            )
        return {key: value.detach().requires_grad_()}

    def forward(
        self,
        student: Outputs,
        teacher: Outputs,
        batch: Batch,
        learner: str | tuple[str, ...] = "student",
    ) -> Update:
        """The update of ``learner`` on the weighted mean of every objective."""
        losses, kept, given = {}, {}, (student, teacher)
        raised = self._raised("student", student), self._raised("teacher", teacher)
        for part, option, schedule in self.schedules:
            setattr(part, option, schedule.at(float(batch.get("progress", 0.0))))
        for name, objective in self.named():
            take = self._coupled if objective.couples else self._mean
            student, teacher = (
                given if objective.needs_input_grad else raised
            )  # a gradient is by what came out of the net, not by a copy
            harmless = self._without_uncounted(objective, student, teacher, batch)
            with torch.autocast(first_tensor(batch).device.type, enabled=False):
                losses[name] = at_progress(self.weights[name], batch) * take(
                    objective,
                    *((student, teacher, batch) if objective.couples else harmless),
                )
                with torch.no_grad():
                    kept.update(
                        {
                            f"{name}.{row}": value
                            for row, value in objective.state_updates(*harmless).items()
                        }
                    )
        if self.balance is not None:
            losses, rows = self.balance(losses, self.counts(batch), given[0])
            kept |= {f"balance.{row}": value for row, value in rows.items()}
        return Update(losses, learner, kept)

    def _raised(self, side: str, outputs: Outputs) -> Outputs:
        """The outputs with what is read of them in float32 or better, so that no objective computes in half precision."""

        def raised(value: Any) -> Any:
            return (
                tuple(map(raised, value))
                if isinstance(value, tuple)
                else to_float32(value)
                if isinstance(value, Tensor)
                else value
            )

        return outputs | {
            role: raised(outputs[role]) for role in self.reads(side) if role in outputs
        }

    @staticmethod
    def _without_uncounted(
        objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Outputs, Outputs, Batch]:
        """Outputs and batch in which nothing of an uncounted item is left that could do harm."""
        keeps_nothing = type(objective).state_updates is Objective.state_updates
        if objective.handles_uncounted or (objective.couples and keeps_nothing):
            # A coupled objective reads only the rows that ``_coupled`` picks.
            return student, teacher, batch
        counted = objective.item_mask(batch)
        if counted is None:
            return student, teacher, batch
        of_teacher = counted
        if "teacher_valid" in batch and counted.ndim == 2:
            # The teacher reads tokens of another tokenizer at other positions.
            of_teacher = (batch["teacher_valid"] > 0) & counted.any(1, keepdim=True)
        if not objective.needs_input_grad:
            # A copy of the outputs has no gradient by the input: such objectives replace themselves.
            student = replace_in_outputs(student, _roles_read(objective, "student"), counted)
            teacher = replace_in_outputs(teacher, _roles_read(objective, "teacher"), of_teacher)
        return student, teacher, replace_in_batch(batch, counted)

    @staticmethod
    def _mean(objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values, weight = objective(student, teacher, batch), objective.weight(batch)
        if objective.sample_weight is not None:
            with torch.no_grad():
                factor = objective.sample_weight(student, teacher, batch)
            if factor.ndim > weight.ndim:  # a sample of several positions: their mean
                factor = mean_of_positions(factor, item_weights(batch))
            if factor.shape == weight.shape:
                factor = torch.where(weight > 0, factor, 0.0)
            values = values * factor
        return mean(values, weight, objective.num_items(batch))

    def _coupled(
        self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> Tensor:
        """The loss of the counted items of all ranks together; zero where nothing counts anywhere."""
        counted = objective.weight(batch) > 0
        picks = "valid" in batch or isinstance(
            objective, LabelObjective
        )  # else every item counts, and asking would wait for the device

        def collect(value: Any, role: str = "") -> Any:
            if role in SHARED_ROLES:
                return value
            if isinstance(value, tuple):
                return tuple(collect(part) for part in value)
            if isinstance(value, dict):  # a member of several
                return {name: collect(part, name) for name, part in value.items()}
            if picks:
                value = value[
                    counted
                    if value.shape[: counted.ndim] == counted.shape
                    else counted.flatten(1).any(1)
                ]
            return value if self.gather is None else self.gather(value)

        mine = {role: collect(student[role], role) for role in objective.reads["student"]}
        theirs = {role: collect(teacher[role], role) for role in objective.reads["teacher"]}
        known: Batch = {key: collect(batch[key]) for key in self.ITEM_KEYS if key in batch}
        if (
            "valid" in batch and batch["valid"].ndim > counted.ndim
        ):  # items are samples, and some of their positions are not valid
            known["valid"] = collect(batch["valid"])
        clock = {key: batch[key] for key in ("step", "progress", "seed") if key in batch}
        anchor = next(value for role, value in mine.items() if role not in SHARED_ROLES)
        if not len(anchor[0] if isinstance(anchor, tuple) else anchor):
            return graph_preserving_zero(mine, mine)
        loss: Tensor = objective(mine, theirs, known | clock)
        return loss

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Number of items that each loss is divided by."""
        return {name: objective.num_items(batch) for name, objective in self.named()}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Hand every objective, and the balance, its own rows."""
        parts: list[tuple[str, Any]] = [
            *self.named(),
            *([("balance", self.balance)] if self.balance is not None else []),
        ]
        for name, part in parts:
            part.after_step(
                {
                    key[len(name) + 1 :]: rows
                    for key, rows in gathered_rows.items()
                    if key.startswith(name + ".")
                }
            )

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows of every objective that studies the teacher before training."""
        teacher = self._raised("teacher", teacher)
        found = [
            (name, objective.collect_statistics(teacher, batch))
            for name, objective in self.named()
            if objective.calibration_samples
        ]
        return {f"{name}.{row}": value for name, rows in found for row, value in rows.items()}

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """Hand every objective its own rows."""
        for name, objective in self.named():
            if objective.calibration_samples:
                objective.load_statistics(
                    {
                        key[len(name) + 1 :]: value
                        for key, value in rows.items()
                        if key.startswith(name + ".")
                    }
                )

    def named(self) -> Iterator[tuple[str, Objective]]:
        """Name and objective, in order."""
        for name in self.weights:
            objective = self[name]
            assert isinstance(objective, Objective)
            yield name, objective

    def items(self) -> ItemsView[str, nn.Module]:
        """Name and objective, without the balance."""
        return dict(self.named()).items()


def mean_of_positions(factor: Tensor, valid: Tensor) -> Tensor:
    """(N,): the mean of (N, ...) over each sample's positions, those that ``valid`` (N, ...) marks where it has their shape."""
    counts = valid if valid.shape == factor.shape else torch.ones_like(factor)
    total = counts.flatten(1).sum(1).clamp_min(1)
    return torch.where(counts > 0, factor * counts, 0.0).flatten(1).sum(1) / total


def _roles_read(module: nn.Module, side: str) -> set[str]:
    """Roles of ``side`` that a module and its parts, such as sample weights, read."""
    readers = [part for part in module.modules() if isinstance(part, RoleConsumer)]
    return {role for reader in readers for role in reader.reads.get(side, ())}
