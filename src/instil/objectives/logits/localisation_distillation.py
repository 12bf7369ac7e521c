"""Localisation distillation: where the teacher sees each edge of a box, and how sure it is."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, Positive
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits


def localisation_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    edges: int = 4,
    temperature: float = 10.0,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(teacher || student) of the softmax over each edge's bins at temperature T, summed over the edges (Zheng et al. 2022).

    Logits (..., edges * bins), the bins of an edge side by side, give (...) for reduction ``none``.
    Raises ValueError where the shapes differ, where the edges do not share the logits evenly, and for fewer than two bins.
    """
    require_same_logits(student, teacher)
    if student.shape[-1] % edges or student.shape[-1] < 2 * edges:
        raise ValueError(
            f"{student.shape[-1]} logits are not {edges} edges of two or more bins each; they have shape (..., edges * bins)"
        )
    shape = (*student.shape[:-1], edges, student.shape[-1] // edges)
    values = softened_kl(student.reshape(shape), teacher.reshape(shape), temperature)
    return apply_reduction(values.sum(-1) * temperature**2, reduction)


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
        equation=r"T^2 \sum_{e=1}^{4} \mathrm{KL}(p^t_{T,e} \Vert p^s_{T,e}), \quad p_{T,e} = \mathrm{softmax}(z_e / T) \text{ over the bins of "
        r"edge } e",
        use="For detectors whose box edges are distributions over bins (GFL and those built on it): it transfers where an edge may lie and how "
        "sure the teacher is, which a loss on corner coordinates cannot. No parameters, no labels.",
        pitfalls="Both detectors need the same bins, range and locations. Mark with valid the locations at or near an object: elsewhere the "
        "teacher's distributions mean nothing. The authors' weight of 0.25 at T = 10 goes with a mean over 17 bins and 4 edges and is about "
        "0.0037 here.",
    )
    needs: ClassVar = {
        "student": (("box_logits", "logits"),),
        "teacher": (("box_logits", "logits"),),
    }

    def __init__(self, edges: Annotated[int, Ge(1)] = 4, temperature: Positive = 10.0):
        super().__init__()
        self.edges, self.temperature = edges, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        return localisation_distillation_loss(mine, theirs, self.edges, self.temperature, "none")
