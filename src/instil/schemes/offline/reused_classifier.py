"""The student speaks through the teacher's classifier, and is shipped with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
    replace_invalid_outputs,
    to_float32,
)
from instil.functional.pooling import global_average_pool

ROLES = ("logits", "features", "embedding")
"""Roles that are passed on to other modules than the objectives."""


class Projects(Protocol):
    """An objective that makes of a student's outputs a map (N, D, H, W), whose mean the teacher's classifier reads."""

    def project(self, student: Outputs) -> Tensor: ...


class Reused(nn.Module):
    """A student whose own classifier is passed over: its embedding by an objective, through another's ``weight`` (C, D) and ``bias`` (C,)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, student: Net, objective: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.student, self.objective = student, objective
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        def ask(model: nn.Module, _batch: Batch) -> Outputs:
            model(*inputs, **options)
            return {}

        embedding = global_average_pool(
            cast(Projects, self.objective).project(self.student({}, call=ask))
        )
        return F.linear(embedding.to(self.weight.dtype), self.weight, self.bias)


class ReusedClassifier(Scheme):
    """The teacher's classifier, as it is, takes the place of the student's (Chen et al. 2022): the student learns its last features alone.

    One of the objectives makes what the classifier reads: ``simkd``. The others see the logits that the classifier gives, so that cross_entropy and
    kd teach what is shipped. The student's own classifier is not used and not trained.
    """

    card = Card(
        "Knowledge distillation with the reused teacher classifier",
        "https://arxiv.org/abs/2203.14001",
        "CVPR",
        2022,
        source="offline",
        equation=r"\mathcal{L}_{simkd}(P f^s, f^t) + \mathcal{L}_{obj}(U^t\, \overline{P f^s}), \quad U^t \text{ fixed}",
        use="Few labels, or a classifier of many classes: the teacher's is worth more than one that the student would learn.",
        pitfalls="The shipped student has the projector's weights more than the student. The teacher's classifier must be linear on the mean of the "
        "stage that simkd learns from.",
    )
    supports_sharding = False
    exports_new_architecture = True

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.empty(0))
        self.register_buffer("bias", torch.empty(0))

    def build(self, batch: Batch) -> None:
        self._objective()
        teacher = self.teacher_outputs(
            batch
        )  # asked first: the objectives may want less of the teacher
        super().build(batch)
        for role in ("head", "logits", "features"):
            if role not in teacher:
                raise ValueError(
                    f"the teacher's classifier is to be reused, and its '{role}' is not known; name it in the teacher's taps"
                )
        self.weight, self.bias = (to_float32(part).clone() for part in teacher["head"])
        stages = teacher["features"]
        embedding = to_float32(
            global_average_pool(stages[-1] if isinstance(stages, tuple) else stages)
        )
        read = embedding.shape[1] == self.weight.shape[1] and F.linear(
            embedding, self.weight, self.bias
        )
        if not isinstance(read, Tensor) or not torch.allclose(
            read, to_float32(teacher["logits"]), rtol=1e-2, atol=1e-2 * float(read.abs().max())
        ):
            raise ValueError(
                "the teacher's classifier does not read the mean of its deepest stage, so it cannot read the student's; "
                "tap the stage right before the average in the teacher's features, or take another scheme"
            )

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update, with the logits of the reused classifier in the place of the student's own."""
        teacher = self.teacher_outputs(batch)
        student = replace_invalid_outputs(self.student(batch), batch, ROLES)
        projected = cast(Projects, self._objective()).project(student)
        embedding = global_average_pool(projected)
        logits = F.linear(embedding.to(self.weight.dtype), self.weight, self.bias)
        spoken = {
            "connected": projected,
            "embedding": embedding,
            "logits": logits,
            "head": (self.weight, self.bias),
        }
        update: Update = self.objectives(student | spoken, teacher, batch)
        return update

    def export(self) -> Net:
        """The student with the projector and the teacher's classifier, which are its own from now on."""
        taps = {
            role: _inside(path)
            for role, path in self.student.taps.items()
            if role not in ("embedding", "head")
        }
        return Net(
            Reused(self.student, self._objective(), self.weight, self.bias), self.student.call, taps
        )

    def _objective(self) -> Objective:
        """The objective that makes what the classifier reads."""
        found = [
            objective for _, objective in self.objectives.named() if hasattr(objective, "project")
        ]
        if len(found) != 1:
            names = ", ".join(name for name, _ in self.objectives.named())
            raise ValueError(
                f"reusing the teacher's classifier needs one objective that learns what it reads, simkd; the objectives are {names}"
            )
        return found[0]


def _inside(path: str | list[str]) -> str | list[str]:
    """A student's path as it is in the shipped net."""
    return (
        f"student.model.{path}"
        if isinstance(path, str)
        else [f"student.model.{one}" for one in path]
    )
