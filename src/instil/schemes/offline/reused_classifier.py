"""SimKD: the student learns the features of the teacher's classifier and is exported with it."""

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
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs

ROLES = ("logits", "features", "embedding")
"""Roles that modules other than the objectives read."""


class Projects(Protocol):
    """Objective that projects the student's outputs to the input of the teacher's classifier."""

    def project(self, student: Outputs) -> Tensor:
        """Return a map (N, D, H, W), whose mean the classifier reads."""


class Reused(nn.Module):
    """A student with the projector of an objective and the classifier of another network.

    Args:
        student: network with a classifier that is not used.
        objective: objective with the projector.
        weight: weight of the classifier (C, D).
        bias: bias of the classifier (C,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, student: Net, objective: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.student = student
        self.objective = objective
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        def call_model(model: nn.Module, _batch: Batch) -> Outputs:
            model(*inputs, **options)
            return {}

        # The model runs for its taps; its own logits are discarded.
        outputs = self.student({}, call=call_model)
        embedding = global_average_pool(cast(Projects, self.objective).project(outputs))
        return F.linear(embedding.to(self.weight.dtype), self.weight, self.bias)


class ReusedClassifier(Scheme):
    """The teacher's fixed classifier replaces the student's (Chen et al. 2022).

    The student learns only its last features. The objective ``simkd`` projects them to the input of
    the classifier. The other objectives, such as cross_entropy and kd, read the logits of that
    classifier. The student's own classifier is neither used nor trained.

    Raises:
        ValueError: without exactly one objective that projects, or if the teacher's classifier is
            unknown or does not read the mean of its deepest stage.
    """

    card = Card(
        "Knowledge distillation with the reused teacher classifier",
        "https://arxiv.org/abs/2203.14001",
        "CVPR",
        2022,
        source="offline",
        tags=("new_architecture",),
        equation=r"\mathcal{L}_{simkd}(P f^s, f^t) + \mathcal{L}_{obj}(U^t\, \overline{P f^s}), "
        r"\quad U^t \text{ fixed}",
        use="For few labels, or a classifier of many classes, where the teacher's classifier is "
        "better than one that the student would learn.",
        pitfalls="The exported student also has the weights of the projector. The teacher's "
        "classifier must be linear in the mean of the stage that simkd learns from.",
    )

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

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "reads the weight of the classifier outside its forward pass"

    def build(self, batch: Batch) -> None:
        self._objective()
        # Before the objectives are built: they may reduce the roles that the teacher computes.
        teacher = self.teacher_outputs(batch)
        super().build(batch)
        for role in ("head", "logits", "features"):
            if role not in teacher:
                raise ValueError(
                    "teacher.taps: the teacher's classifier is reused. Expected "
                    f"'{role}' in its outputs, got {', '.join(teacher)}. Name '{role}' in taps"
                )
        self.weight, self.bias = (to_float32(part).clone() for part in teacher["head"])
        if not self._reads_mean(teacher):
            raise ValueError(
                "teacher: the classifier does not read the mean of its deepest stage, so it cannot "
                "read the student's. Expected a linear classifier on the pooled stage. Name the "
                "stage before the pooling in the teacher's features, or use another scheme"
            )

    def _reads_mean(self, teacher: Outputs) -> bool:
        """Whether the teacher's logits are a linear function of the mean of its deepest stage."""
        stages = teacher["features"]
        deepest = stages[-1] if isinstance(stages, tuple) else stages
        embedding = to_float32(global_average_pool(deepest))
        if embedding.shape[1] != self.weight.shape[1]:
            return False
        expected = F.linear(embedding, self.weight, self.bias)
        # Wide enough for the rounding of a network in half precision.
        tolerance = 1e-2 * float(expected.abs().max())
        return torch.allclose(expected, to_float32(teacher["logits"]), rtol=1e-2, atol=tolerance)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses, with the logits of the reused classifier."""
        teacher = self.teacher_outputs(batch)
        student = replace_invalid_outputs(self.student(batch), batch, ROLES)
        projected = cast(Projects, self._objective()).project(student)
        embedding = global_average_pool(projected)
        logits = F.linear(embedding.to(self.weight.dtype), self.weight, self.bias)
        replaced = {
            "connected": projected,
            "embedding": embedding,
            "logits": logits,
            "head": (self.weight, self.bias),
        }
        update: Update = self.objectives(student | replaced, teacher, batch)
        return update

    def export(self) -> Net:
        """Return the student with the projector and the teacher's classifier."""
        taps = {
            role: _exported_path(path)
            for role, path in self.student.taps.items()
            if role not in ("embedding", "head")
        }
        model = Reused(self.student, self._objective(), self.weight, self.bias)
        return Net(model, self.student.call, taps)

    def _objective(self) -> Objective:
        """The objective that projects to the input of the classifier."""
        projecting = [
            objective for _, objective in self.objectives.named() if hasattr(objective, "project")
        ]
        if len(projecting) != 1:
            names = ", ".join(name for name, _ in self.objectives.named())
            raise ValueError(
                "objectives: reused_classifier needs one objective that learns the input of the "
                f"teacher's classifier. Expected simkd, got {names}. Add simkd"
            )
        return projecting[0]


def _exported_path(path: str | list[str]) -> str | list[str]:
    """Module path of the student in the exported network."""
    if isinstance(path, str):
        return f"student.model.{path}"
    return [f"student.model.{part}" for part in path]
