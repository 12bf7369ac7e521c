"""Several objectives as one module."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping

import torch
from torch import Tensor, nn

from instil.cards import Schedule, at_progress, suggestion
from instil.core.balance import Balance
from instil.core.checks import check_types
from instil.core.item_losses import item_mean, roles_read, without_uncounted
from instil.core.objective import Objective, Weighting
from instil.core.update import Gather, Update
from instil.items import Batch, Outputs, first_tensor, graph_preserving_zero
from instil.items.point_features import align_point_features
from instil.items.scheduled import extract_schedules, values_at, with_options
from instil.items.selection import (
    CountedRows,
    Selection,
    all_outputs,
    differentiable_input,
    has_rows,
    outputs_to_float32,
    rows_of,
)

PROGRESS = "progress"
"""Row of the progress at which scheduled options had their values in this step."""


class Objectives(nn.ModuleDict):
    """Named, weighted objectives; takes the weighted means over items.

    An objective that couples its items gets the counted items of all processes, flat, and only the
    batch entries that belong to items: ``label``, ``index``, ``view`` and its ``batch_keys``.

    Args:
        objectives: name -> objective; an option may be a schedule.
        weights: name -> number or schedule; 1 by default.
        sample_weights: name -> weights of the items of an objective that does not couple them.
        balance: changes the weights of all losses.

    Attributes:
        gather: gathers rows from all processes; set by the engine if there are several.
        missing_role_remedy: end of the error for a role that the teacher does not return.
        student_modules: sentence with the modules that student taps could name.
        selection: selects the outputs and the batch that an objective reads.

    Raises:
        ValueError: for a value that is not an objective, or a name that is not allowed; for a
            weight that is negative or not finite, or of an unknown objective; for sample weights of
            a coupled objective.
    """

    def __init__(
        self,
        objectives: Mapping[str, Objective],
        weights: Mapping[str, float | Schedule] | None = None,
        sample_weights: Mapping[str, Weighting] | None = None,
        balance: Balance | None = None,
    ):
        super().__init__()
        check_types(objectives, weights or {})
        self.weights: dict[str, float | Schedule] = dict.fromkeys(objectives, 1.0)
        self.weights |= weights or {}
        if unknown := sorted((set(self.weights) | set(sample_weights or ())) - set(objectives)):
            raise ValueError(
                f"weights: unknown objective '{unknown[0]}'.{suggestion(unknown[0], objectives)}"
            )
        self.balance: Balance | None = None
        self.gather: Gather | None = None
        self.missing_role_remedy: str | None = None
        self.student_modules = ""
        self.selection: Selection = all_outputs
        self._check_names(objectives)
        for name, weighting in (sample_weights or {}).items():
            if objectives[name].couples:
                raise ValueError(
                    f"objectives.{name}.sample_weight: {type(objectives[name]).__name__} has one "
                    "loss for the batch, whose samples have no weights. Leave sample_weight out"
                )
            objectives[name].sample_weight = weighting
        self.update(objectives)
        self.name_streams("objectives")
        self.balance = balance
        self.schedules = extract_schedules(self)  # adapters are built with the first values

    def _check_names(self, names: Mapping[str, Objective]) -> None:
        for name in names:
            if not name or "." in name or hasattr(self, name):
                raise ValueError(
                    f"objectives.{name}: not allowed as the name of an objective. Choose another "
                    "name, and set the method with type"
                )

    def name_streams(self, prefix: str) -> None:
        """Name the random streams of every objective and sample weight after its path.

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
                objective.resolve(student, teacher, self.missing_role_remedy)
                if objective.sample_weight is not None:
                    objective.sample_weight.resolve(student, teacher, self.missing_role_remedy)
                roles = roles_read(objective, "student") | roles_read(objective, "teacher")
                outputs = align_point_features(student, teacher, roles)
                objective.build(*self.selection(objective, *outputs, {})[:2])
            except ValueError as error:
                where = f". {self.student_modules}" if "student taps" in str(error) else ""
                raise ValueError(f"objectives.{name}: {error}{where}") from error

    def reads(self, side: str) -> set[str]:
        """All roles of ``side`` that are read."""
        return roles_read(self, side)

    @property
    def needs_input_grad(self) -> bool:
        """Whether an objective differentiates with respect to the input (role ``input``)."""
        return "input" in self.reads("student") | self.reads("teacher")

    def requires_double_backward(self) -> list[str]:
        """Names of the objectives that need a second derivative."""
        return [f"objectives.{name}" for name, one in self.named() if one.needs_input_grad]

    def input_leaf(self, batch: Batch) -> Batch:
        """First tensor of the batch as a leaf under its key, if an objective needs it, else {}.

        Raises:
            ValueError: if the tensor is not floating-point.
        """
        return differentiable_input(batch) if self.needs_input_grad else {}

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
        student, teacher = align_point_features(
            student, teacher, self.reads("student") | self.reads("teacher")
        )
        original = student, teacher
        converted = (
            outputs_to_float32(student, self.reads("student")),
            outputs_to_float32(teacher, self.reads("teacher")),
        )
        progress = torch.as_tensor(batch.get("progress", 0.0))
        options = values_at(self.schedules, progress)
        for name, unscheduled in self.named():
            objective = with_options(unscheduled, options)
            # A gradient is taken with respect to the output of the net, not to a copy of it.
            outputs = original if objective.needs_input_grad else converted
            selected = self.selection(objective, *outputs, batch)
            harmless = without_uncounted(objective, *selected)
            with torch.autocast(first_tensor(batch).device.type, enabled=False):
                weight = at_progress(self.weights[name], batch)
                if objective.couples:
                    losses[name] = weight * self._coupled(objective, *selected)
                else:
                    losses[name] = weight * item_mean(objective, *harmless)
                with torch.no_grad():
                    rows = objective.state_updates(*harmless)
            state_updates |= {f"{name}.{key}": value for key, value in rows.items()}
        if self.balance is not None:
            balance = with_options(self.balance, options)
            losses, rows = balance(losses, self.counts(batch), student)
            state_updates |= {f"balance.{key}": value for key, value in rows.items()}
        if self.schedules:
            state_updates[PROGRESS] = progress.view(1)
        return Update(losses, learner, state_updates)

    def _coupled(
        self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> Tensor:
        """Loss of the counted items of all processes together; zero if there are none."""
        counted = objective.weight(batch) > 0
        rows = CountedRows(counted, objective.items.leaves_out(batch), self.gather)
        student = rows.outputs(student, objective.reads["student"])
        teacher = rows.outputs(teacher, objective.reads["teacher"])
        items = rows.batch(batch, objective.batch_keys)
        if not has_rows(student):
            return graph_preserving_zero(student, student)
        loss: Tensor = objective(student, teacher, items)
        return loss

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Number of items that each loss is divided by."""
        return {
            name: objective.num_items(self.selection(objective, {}, {}, batch)[2])
            for name, objective in self.named()
        }

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Pass its own rows to every objective and to the balance."""
        options = values_at(self.schedules, gathered_rows.get(PROGRESS))
        for name, objective in self.named():
            with_options(objective, options).after_step(rows_of(name, gathered_rows))
        if self.balance is not None:
            balance = with_options(self.balance, options)
            balance.after_step(rows_of("balance", gathered_rows))

    def named(self) -> Iterator[tuple[str, Objective]]:
        """Name and objective, in order."""
        for name in self.weights:
            objective = self[name]
            assert isinstance(objective, Objective)
            yield name, objective

    def items(self) -> ItemsView[str, nn.Module]:
        """Name and objective, without the balance."""
        return dict(self.named()).items()
