"""Who learns from whom, in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from instil.core.batch import Batch, Outputs, first_tensor
from instil.core.card import Card
from instil.core.keywords import ClearKeywords
from instil.core.net import Net, as_net
from instil.core.objective import Objective
from instil.core.objectives import Objectives, Update
from instil.core.teacher import Teacher

MOST_MODULES = 12
"""Modules that an error about missing taps lists."""
Perturbation = Callable[[nn.Module, Batch], Batch]
"""Of a net (or teacher) that is evaluated and a batch of test samples a harder batch, for this net."""


class Scheme(ClearKeywords, nn.Module):
    """Who learns from whom, in which order: ``step`` is a generator and every ``yield`` is one optimizer step.

    ``learners`` maps a name to the submodules it trains; they must partition the trainable parameters. ``teacher`` may be None (a student alone).
    """

    card: ClassVar[Card]
    supports_sharding: bool = (
        True  # no part of it is used but through its forward, or differentiated twice
    )
    synthetic_inputs: ClassVar[bool] = (
        False  # it learns from images that it makes itself, in the shape of the batch's
    )
    synthetic_labels: ClassVar[bool] = False  # and it knows of each which class it is
    on_policy_text: ClassVar[bool] = (
        False  # it learns from texts that are written during training, about which nobody can be asked before
    )
    exports_new_architecture: ClassVar[bool] = (
        False  # ``export`` gives another architecture than the student's, made of parts of the scheme
    )
    # It trains a teacher whose outputs belong to the training samples by their index.
    predicts_by_index: ClassVar[bool] = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__()
        self.learners: dict[str, tuple[str, ...]] = {"student": ("student", "objectives")}
        self.student, self.teacher = as_net(student), teacher
        self.objectives = (
            objectives if isinstance(objectives, Objectives) else Objectives(objectives)
        )
        self.objectives.missing_role_hint = None if teacher is None else teacher.missing_role_hint
        self.objectives.student_modules = _modules(self.student)
        self.prepared = False

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        """The teacher's outputs, {} where there is none."""
        return {} if self.teacher is None else self.teacher(batch, grad=grad)

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs of student and teacher; the teacher is asked first, so that its temporaries are gone before the student's graph is kept."""
        teacher = self.teacher_outputs(batch, grad)
        return self.student(batch), teacher

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update.

        Where an objective reads ``input``, both sides are differentiable by one leaf that stands for the batch's first tensor.
        """
        leaf = self.objectives.input_leaf(batch)
        inputs = {"input": first_tensor(batch | leaf)} if leaf else {}
        with (
            sdpa_kernel(SDPBackend.MATH) if leaf else contextlib.nullcontext()
        ):  # fused attention has no second derivative
            student, teacher = self.forward_both(batch | leaf, grad=bool(leaf))
        update: Update = self.objectives(student | inputs, teacher | inputs, batch)
        return update

    def prepare(self, batch: Batch) -> None:
        """Build what depends on shapes, once, on a dry batch: eval mode, no gradients, random state as it was."""
        if not self.prepared:
            with side_effect_free(self):
                self.build(batch)
            self.prepared = True

    def build(self, batch: Batch) -> None:
        """What ``prepare`` does inside the dry run."""
        inputs = {"input": first_tensor(batch)} if self.objectives.needs_input_grad else {}
        student, teacher = self.forward_both(batch)
        self.objectives.build(student | inputs, teacher | (inputs if self.teacher else {}))
        if self.teacher is not None:
            self.teacher.select_roles(self.objectives.reads("teacher") - {"input"}, batch)

    def before_step(self, batch: Batch) -> Batch:
        """What the step learns from (rollouts, attacks, made images); leaves no gradient on any learner."""
        return batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Items behind each loss of ``step``: a scalar, or one entry for each update of that loss."""
        return self.objectives.counts(batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        """Changes no state; every micro-batch and rank must yield the same learners in the same order."""
        raise NotImplementedError

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The only place where state moves, apart from the optimizers."""
        self.objectives.after_step(gathered_rows)

    def export(self) -> Net:
        """What is evaluated, timed and shipped."""
        return self.student

    def other_students(self) -> dict[str, Net]:
        """Other students that were trained beside the exported one, by name: scored and kept like it."""
        return {}

    def pictures(self, batch: Batch) -> Tensor | None:
        """Of what ``step`` learns from, the images (N, C, H, W) in [0, 1]; None where there are none."""
        image: Tensor | None = self.before_step(batch).get("image")
        return image

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """What every net of an experiment must stand beside the plain test samples, by the options of the recipe's scheme.

        Its name becomes that of a metric: the task's headline on the harder batches.
        """
        return {}


def _modules(net: Net) -> str:
    """Names that taps of a net can have, the outer modules first."""
    names = sorted((name for name, _ in net.model.named_modules() if name), key=_depth)
    listed = ", ".join(names[:MOST_MODULES]) + (" ..." if len(names) > MOST_MODULES else "")
    return f"Its modules: {listed}" if names else "It has no modules inside"


def _depth(name: str) -> int:
    return name.count(".")


@contextlib.contextmanager
def side_effect_free(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, a forked random state: nothing that happens inside is felt outside."""
    modes = {part: part.training for part in module.modules()}
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
