"""Localisation distillation: where the teacher sees each edge of a box, and how sure it is."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, Positive, full
from instil.objectives.logit_objective import kl_divergence, reduced, require_same_logits


def localisation_distillation_loss(student: Tensor, teacher: Tensor, edges: int = 4, temperature: float = 10.0, reduction: str = "mean") -> Tensor:
    """T² KL(teacher || student) of the softmax over each edge's bins at temperature T, summed over the edges (Zheng et al. 2022).

    Logits (..., edges * bins), the bins of an edge side by side, give (...) for reduction ``none``.
    Raises ValueError where the shapes differ, where the edges do not share the logits evenly, and for fewer than two bins.
    """
    require_same_logits(student, teacher)
    if student.shape[-1] % edges or student.shape[-1] < 2 * edges:
        raise ValueError(f"{student.shape[-1]} logits are not {edges} edges of two or more bins each; they have shape (..., edges * bins)")
    shape = (*student.shape[:-1], edges, student.shape[-1] // edges)
    log_student, log_teacher = ((full(side) / temperature).reshape(shape).log_softmax(-1) for side in (student, teacher))
    return reduced(kl_divergence(log_teacher, log_student).sum(-1) * temperature**2, reduction)


class LocalisationDistillation(Objective):
    """Each edge of a box is a distribution over discrete distances, and the student's follows the teacher's; ``box_logits`` (..., 4 * bins).

    ``edges``: how many distributions an item has.
    ``temperature``: divides the logits.

    Items are locations; ``valid`` says at which of them to learn (the paper: where there is an object, and near one).
    """

    card = Card(
        "Localization Distillation for Dense Object Detection",
        "https://arxiv.org/abs/2102.12252",
        "CVPR",
        2022,
        source="logits",
        tasks=("detection",),
        deviations="The authors' code divides by the number of bins and of edges too. The region in which to learn is the batch's.",
    )
    needs: ClassVar = {"student": (("box_logits", "logits"),), "teacher": (("box_logits", "logits"),)}

    def __init__(self, edges: Annotated[int, Ge(1)] = 4, temperature: Positive = 10.0):
        super().__init__()
        self.edges, self.temperature = edges, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return localisation_distillation_loss(mine, theirs, self.edges, self.temperature, "none")
