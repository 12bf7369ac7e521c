"""Several objectives as one module, and the update that they return."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.cards import Card, Schedule, at_progress, closest
from instil.cards.keywords import ClearKeywords
from instil.core.objective import LabelObjective, Objective, RoleConsumer, Weighting
from instil.items.batch import (
    Batch,
    Outputs,
    first_tensor,
    graph_preserving_zero,
    item_weights,
    mean,
    to_float32,
)
from instil.items.uncounted import replace_in_batch, replace_in_outputs
from instil.roles.signals import SHARED_ROLES

CLOCK_KEYS = ("step", "progress", "seed")


@dataclass
class Update:
    """Losses of one optimizer step, each the mean over its own items.

    Attributes:
        losses: name -> scalar loss.
        learner: learner that takes the step, or several that share the losses.
        state_updates: name -> rows for ``after_step``.
    """

    losses: dict[str, Tensor]
    learner: str | tuple[str, ...] = "student"
    state_updates: dict[str, Tensor] = field(default_factory=dict)


Gather = Callable[[Tensor], Tensor]
"""Rows of this process -> rows of all processes in global order, differentiable."""


class Balance(ClearKeywords, nn.Module):
    """Base class of rules that change the weights of several losses during training.

    Options are attributes of the same name.

    Attributes:
        needs_input_grad: takes gradients with respect to the student's outputs.
    """

    card: ClassVar[Card]
    needs_input_grad: ClassVar[bool] = False

    def build(self, couples: Mapping[str, bool]) -> None:
        """Make parameters and buffers, once.

        Args:
            couples: name of each loss -> whether it couples the batch.
        """

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Balance the losses.

        Args:
            losses: name -> weighted loss.
            counts: name -> number of items of this micro-batch.
            student: outputs of the student.

        Returns:
            The balanced losses, and rows for ``after_step``.
        """
        raise NotImplementedError

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update buffers; no other method changes them."""


class Objectives(nn.ModuleDict):
    """Named, weighted objectives; takes the weighted means over items.

    An objective that couples its items gets the counted items of all processes, flat, and only the
    batch entries that belong to items.

    Args:
        objectives: name -> objective; an option may be a schedule.
        weights: name -> number or schedule; 1 by default.
        sample_weights: name -> weights of the items of an objective that does not couple them.
        balance: changes the weights of all losses.

    Raises:
        ValueError: for a weight of an unknown objective, a name that is not allowed, or sample
            weights of a coupled objective.
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
                f"a weight for '{unknown[0]}', which is no objective here; "
                f"{closest(unknown[0], objectives)}"
            )
        self.balance: Balance | None = None
        self.gather: Gather | None = None  # set by the engine if there are several processes
        self.missing_role_hint: str | None = None  # set by the scheme: that of the teacher
        self.student_modules = ""  # set by the scheme: modules that student taps could name
        self._check_names(objectives)
        for name, weighting in (sample_weights or {}).items():
            if objectives[name].couples:
                raise ValueError(
                    f"objectives.{name}: {type(objectives[name]).__name__} has one loss for the "
                    "batch; its samples have no weights"
                )
            objectives[name].sample_weight = weighting
        self.update(objectives)
        self.name_streams("objectives")
        self.balance = balance
        self.schedules = [
            (part, option, value)
            for part in self.modules()
            for option, value in vars(part).items()
            if isinstance(value, Schedule)
        ]
        for part, option, schedule in self.schedules:
            setattr(part, option, schedule.start)  # adapters are built with the first value

    def _check_names(self, names: Mapping[str, Objective]) -> None:
        for name in names:
            if not name or "." in name or hasattr(self, name):
                raise ValueError(
                    f"objectives.{name}: this cannot be the name of an objective; give it another "
                    "one, and say the method with type"
                )

    def name_streams(self, prefix: str) -> None:
        """Name the random streams of every objective and sample weight after its place.

        Args:
            prefix: path of this module in its scheme.
        """
        for name, objective in self.named():
            objective.stream = f"{prefix}.{name}"
            if objective.sample_weight is not None:
                objective.sample_weight.stream = f"{prefix}.{name}.sample_weight"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Resolve the roles of every objective and make its adapters.

        Raises:
            ValueError: if an objective does not fit the outputs; the message names it.
        """
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
        """All roles of ``side`` that are read."""
        return _roles_read(self, side)

    @property
    def needs_input_grad(self) -> bool:
        """Whether an objective differentiates with respect to the input (role ``input``)."""
        return "input" in self.reads("student") | self.reads("teacher")

    def requires_double_backward(self) -> list[str]:
        """Losses that need double backward, which sharded nets do not support."""
        names = [f"objectives.{name}" for name, one in self.named() if one.needs_input_grad]
        if self.balance is not None and self.balance.needs_input_grad:
            names.append("balance")
        return names

    def input_leaf(self, batch: Batch) -> Batch:
        """First tensor of the batch as a leaf under its key, if an objective needs it, else {}.

        Raises:
            ValueError: if the tensor is not floating-point.
        """
        if not self.needs_input_grad:
            return {}
        first = first_tensor(batch)
        key = next(key for key, value in batch.items() if value is first)
        if not first.is_floating_point():
            raise ValueError(
                f"an objective reads the gradient by the input, but '{key}', the batch's first "
                f"tensor, is {first.dtype}"
            )
        return {key: first.detach().requires_grad_()}

    def forward(
        self,
        student: Outputs,
        teacher: Outputs,
        batch: Batch,
        learner: str | tuple[str, ...] = "student",
    ) -> Update:
        """Update of ``learner`` on the weighted mean of every objective."""
        losses: dict[str, Tensor] = {}
        state_updates: dict[str, Tensor] = {}
        original = student, teacher
        converted = self._to_float32("student", student), self._to_float32("teacher", teacher)
        for part, option, schedule in self.schedules:
            setattr(part, option, schedule.at(float(batch.get("progress", 0.0))))
        for name, objective in self.named():
            # A gradient is taken with respect to the output of the net, not to a copy of it.
            outputs = original if objective.needs_input_grad else converted
            harmless = self._without_uncounted(objective, *outputs, batch)
            with torch.autocast(first_tensor(batch).device.type, enabled=False):
                weight = at_progress(self.weights[name], batch)
                if objective.couples:
                    losses[name] = weight * self._coupled(objective, *outputs, batch)
                else:
                    losses[name] = weight * self._mean(objective, *harmless)
                with torch.no_grad():
                    rows = objective.state_updates(*harmless)
            state_updates |= {f"{name}.{key}": value for key, value in rows.items()}
        if self.balance is not None:
            losses, rows = self.balance(losses, self.counts(batch), original[0])
            state_updates |= {f"balance.{key}": value for key, value in rows.items()}
        return Update(losses, learner, state_updates)

    def _to_float32(self, side: str, outputs: Outputs) -> Outputs:
        """Outputs whose read roles are in float32 or better."""

        def converted(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(converted, value))
            return to_float32(value) if isinstance(value, Tensor) else value

        return outputs | {
            role: converted(outputs[role]) for role in self.reads(side) if role in outputs
        }

    @staticmethod
    def _without_uncounted(
        objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Outputs, Outputs, Batch]:
        """Outputs and batch in which the values of uncounted items are replaced."""
        has_no_state = type(objective).state_updates is Objective.state_updates
        if objective.handles_uncounted or (objective.couples and has_no_state):
            # A coupled objective reads only the rows that ``_coupled`` selects.
            return student, teacher, batch
        counted = objective.item_mask(batch)
        if counted is None:
            return student, teacher, batch
        teacher_counted = counted
        if "teacher_valid" in batch and counted.ndim == 2:
            # The teacher reads tokens of another tokenizer at other positions.
            teacher_counted = (batch["teacher_valid"] > 0) & counted.any(1, keepdim=True)
        if not objective.needs_input_grad:
            # A copy of the outputs has no gradient by the input: such objectives replace themselves.
            student = replace_in_outputs(student, _roles_read(objective, "student"), counted)
            teacher = replace_in_outputs(
                teacher, _roles_read(objective, "teacher"), teacher_counted
            )
        return student, teacher, replace_in_batch(batch, counted)

    @staticmethod
    def _mean(objective: Objective, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Weighted mean over the items of an objective that does not couple them."""
        values = objective(student, teacher, batch)
        weight = objective.weight(batch)
        if objective.sample_weight is not None:
            with torch.no_grad():
                factor = objective.sample_weight(student, teacher, batch)
            if factor.ndim > weight.ndim:
                factor = mean_of_positions(factor, item_weights(batch))
            if factor.shape == weight.shape:
                factor = torch.where(weight > 0, factor, 0.0)
            values = values * factor
        return mean(values, weight, objective.num_items(batch))

    def _coupled(
        self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> Tensor:
        """Loss of the counted items of all processes together; zero if there are none."""
        counted = objective.weight(batch) > 0
        # Without both, every item counts, and a look at the mask would wait for the device.
        has_uncounted = "valid" in batch or isinstance(objective, LabelObjective)

        def collect(value: Any, role: str = "") -> Any:
            if role in SHARED_ROLES:
                return value
            if isinstance(value, tuple):
                return tuple(collect(part) for part in value)
            if isinstance(value, dict):  # outputs of one of several teachers
                return {name: collect(part, name) for name, part in value.items()}
            if has_uncounted:
                has_positions = value.shape[: counted.ndim] == counted.shape
                value = value[counted if has_positions else counted.flatten(1).any(1)]
            return value if self.gather is None else self.gather(value)

        student = {role: collect(student[role], role) for role in objective.reads["student"]}
        teacher = {role: collect(teacher[role], role) for role in objective.reads["teacher"]}
        items: Batch = {key: collect(batch[key]) for key in self.ITEM_KEYS if key in batch}
        if "valid" in batch and batch["valid"].ndim > counted.ndim:
            # Items are samples, and some of their positions are not valid.
            items["valid"] = collect(batch["valid"])
        clock = {key: batch[key] for key in CLOCK_KEYS if key in batch}
        anchor = next(value for role, value in student.items() if role not in SHARED_ROLES)
        if not len(anchor[0] if isinstance(anchor, tuple) else anchor):
            return graph_preserving_zero(student, student)
        loss: Tensor = objective(student, teacher, items | clock)
        return loss

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Number of items that each loss is divided by."""
        return {name: objective.num_items(batch) for name, objective in self.named()}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Pass its own rows to every objective and to the balance."""
        for name, objective in self.named():
            objective.after_step(_rows_of(name, gathered_rows))
        if self.balance is not None:
            self.balance.after_step(_rows_of("balance", gathered_rows))

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows of teacher statistics of every objective with ``calibration_samples``."""
        teacher = self._to_float32("teacher", teacher)
        statistics: dict[str, Tensor] = {}
        for name, objective in self.named():
            if objective.calibration_samples:
                rows = objective.collect_statistics(teacher, batch)
                statistics |= {f"{name}.{key}": value for key, value in rows.items()}
        return statistics

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """Pass its own rows to every objective with ``calibration_samples``."""
        for name, objective in self.named():
            if objective.calibration_samples:
                objective.load_statistics(_rows_of(name, rows))

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
    """Mean (N,) of ``factor`` (N, ...) over the valid positions of each sample.

    Args:
        factor: (N, ...).
        valid: (N, ...) to select positions, or another shape to take all.
    """
    counts = valid if valid.shape == factor.shape else torch.ones_like(factor)
    total = counts.flatten(1).sum(1).clamp_min(1)
    return torch.where(counts > 0, factor * counts, 0.0).flatten(1).sum(1) / total


def _rows_of(name: str, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries ``name.key`` of ``rows``, by key."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value for key, value in rows.items() if key.startswith(prefix)
    }


def _roles_read(module: nn.Module, side: str) -> set[str]:
    """Roles of ``side`` that a module and its parts, such as sample weights, read."""
    consumers = [part for part in module.modules() if isinstance(part, RoleConsumer)]
    return {role for consumer in consumers for role in consumer.reads.get(side, ())}
