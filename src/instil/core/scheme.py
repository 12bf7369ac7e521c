"""Base class of schemes: which nets learn from which, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from instil.cards import Card, at_progress
from instil.cards.keywords import ClearKeywords
from instil.core.checks import check_teacher
from instil.core.objective import Objective
from instil.core.objectives import Objectives
from instil.core.teacher import Teacher
from instil.core.update import Update
from instil.items.batch import Batch, Outputs, first_tensor
from instil.items.scheduled import ScheduledOption, extract_schedules
from instil.roles import ExplainsMissingRoles
from instil.taps import Net, as_net, describe_modules, side_effect_free


class Scheme(ClearKeywords, nn.Module):
    """Base class of schemes; ``step`` is a generator, and every ``yield`` is one optimizer step.

    Optional capabilities are protocols of ``instil.capabilities`` and tags of the card.

    Args:
        student: the student.
        teacher: the teacher; None: the student learns alone.
        objectives: losses, by name.

    Raises:
        ValueError: for a teacher or objectives of another type.

    Attributes:
        learners: name of each learner -> submodules that it trains. Learners must partition the
            trainable parameters.
        schedules: scheduled options, extracted by ``prepare``. Until the first step they have their
            first values.
        own_schedules: options that the scheme reads at the progress of each batch itself.
    """

    card: ClassVar[Card]
    own_schedules: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__()
        check_teacher(teacher)
        self.learners: dict[str, tuple[str, ...]] = {"student": ("student", "objectives")}
        self.student = as_net(student)
        self.teacher = teacher
        if not isinstance(objectives, Objectives):
            objectives = Objectives(objectives)
        self.objectives = objectives
        self.objectives.missing_role_remedy = (
            teacher.missing_role_remedy() if isinstance(teacher, ExplainsMissingRoles) else None
        )
        self.objectives.student_modules = describe_modules(self.student.model)
        self.schedules: list[ScheduledOption] = []
        self.prepared = False

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        """Outputs of the teacher, {} without one."""
        return {} if self.teacher is None else self.teacher(batch, grad=grad)

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs of student and teacher."""
        # The teacher first: its temporaries are freed before the student's graph is kept.
        teacher = self.teacher_outputs(batch, grad)
        return self.student(batch), teacher

    def compute_losses(self, batch: Batch) -> Update:
        """Update of the objectives.

        If an objective reads ``input``, both sides are differentiable with respect to one leaf that
        replaces the first tensor of the batch.
        """
        leaf = self.objectives.input_leaf(batch)
        inputs = {"input": first_tensor(batch | leaf)} if leaf else {}
        # Fused attention has no second derivative.
        attention = sdpa_kernel(SDPBackend.MATH) if leaf else contextlib.nullcontext()
        with attention:
            student, teacher = self.forward_both(batch | leaf, grad=bool(leaf))
        update: Update = self.objectives(student | inputs, teacher | inputs, batch)
        return update

    def prepare(self, batch: Batch) -> None:
        """Build what depends on shapes, once, on a dry batch.

        The dry run is in eval mode without gradients; the random state stays as it was.
        """
        if self.prepared:
            return
        # Two containers of a scheme may hold objectives of one name.
        for path, part in self.named_modules():
            if isinstance(part, Objectives):
                part.name_streams(path)
        own = {name: getattr(self, name) for name in self.own_schedules}
        for part, option, schedule in extract_schedules(self):
            if part is self and option in own:
                setattr(self, option, own[option])
            else:
                self.schedules.append((part, option, schedule))
        with side_effect_free(self):
            self.build(batch)
        self.prepared = True

    def set_progress(self, batch: Batch) -> None:
        """Give scheduled options their values in a step; called before the step.

        Args:
            batch: batch with ``progress`` (0 by default).
        """
        for part, option, schedule in self.schedules:
            setattr(part, option, at_progress(schedule, batch))

    def build(self, batch: Batch) -> None:
        """Build adapters, inside the dry run of ``prepare``."""
        inputs = {"input": first_tensor(batch)} if self.objectives.needs_input_grad else {}
        student, teacher = self.forward_both(batch)
        self.objectives.build(student | inputs, teacher | (inputs if self.teacher else {}))
        if self.teacher is not None:
            self.teacher.select_roles(self.teacher_roles(), batch)

    def teacher_roles(self) -> set[str]:
        """Roles of the teacher that the objectives and the scheme itself read, after ``build``."""
        return set(self.objectives.reads("teacher") - {"input"})

    def before_step(self, batch: Batch) -> Batch:
        """Batch that the step learns from, such as rollouts, attacks or synthetic images.

        It must leave no gradient on any learner.
        """
        return batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Number of items of each loss of ``step``: a scalar, or one entry per update."""
        return self.objectives.counts(batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        """Yield the updates of a step.

        A step changes no state. Every micro-batch and process must yield the same learners in the
        same order.
        """
        raise NotImplementedError

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update state; apart from the optimizers, nothing else changes it.

        Args:
            gathered_rows: ``state_updates`` of all micro-batches and processes, in global order.
        """
        self.objectives.after_step(gathered_rows)

    def export(self) -> Net:
        """Net that is evaluated, timed and deployed."""
        return self.student
