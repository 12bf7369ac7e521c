"""Localisation distillation: KL divergence between the distributions of box edge positions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds
from instil.functional.edge_distributions import edge_divergence
from instil.functional.logits import apply_reduction


@check_bounds
def localisation_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    edges: Annotated[int, Ge(1)] = 4,
    temperature: Positive = 10.0,
    reduction: str = "mean",
) -> Tensor:
    """Localisation distillation loss (Zheng et al. 2022).

    ``temperature ** 2`` times the KL divergence from the teacher's to the student's softmax over
    the bins of each edge, summed over the edges.

    Args:
        student_logits: (..., edges * bins); the bins of one edge are adjacent.
        teacher_logits: (..., edges * bins).
        edges: number of edge distributions per item, >= 1.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or the last dimension is not ``edges`` times an equal
            number of bins, at least two.

    Example:
        >>> import torch
        >>> localisation_distillation_loss(torch.zeros(1, 8), torch.eye(8)[:1], temperature=1.0)
        tensor(0.1109)
    """
    values = edge_divergence(student_logits, teacher_logits, edges, temperature)
    return apply_reduction(values, reduction)


class LocalisationDistillation(Objective):
    """KL divergence between box edge distributions; reads ``box_logits`` (..., 4 * bins).

    Items are locations. ``valid`` in the batch selects the locations to learn from; the paper uses
    those on or near an object.
    """

    card = Card(
        "Localization Distillation for Dense Object Detection",
        "https://arxiv.org/abs/2102.12252",
        "CVPR",
        2022,
        source="logits",
        tasks=("detection",),
        deviations="The authors' code also divides by the number of bins and of edges. The "
        "batch defines the region to learn from.",
        equation=r"T^2 \sum_{e=1}^{4} \mathrm{KL}(p^t_{T,e} \Vert p^s_{T,e}), \quad p_{T,e} = "
        r"\mathrm{softmax}(z_e / T) \text{ over the bins of edge } e",
        use="For detectors whose box edges are distributions over bins (GFL and its "
        "descendants). It transfers the possible positions of an edge and the teacher's "
        "uncertainty, which a loss on corner coordinates cannot. It has no parameters and needs "
        "no labels.",
        pitfalls="Both detectors need the same bins, range and locations. Mark the locations on or "
        "near an object with valid, because the teacher's distributions carry no information "
        "elsewhere. The authors' weight of 0.25 at T = 10 does not carry over: it belongs to a sum "
        "over the anchors of the batch, of means over 17 bins and 4 edges.",
    )
    needs: ClassVar = {
        "student": (("box_logits", "logits"),),
        "teacher": (("box_logits", "logits"),),
    }

    def __init__(
        self,
        edges: Annotated[int, Ge(1), Doc("number of edge distributions per item")] = 4,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 10.0,
    ):
        super().__init__()
        self.edges = edges
        self.temperature = temperature

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_logits = student_outputs[self.reads["student"][0]]
        teacher_logits = teacher_outputs[self.reads["teacher"][0]]
        return localisation_distillation_loss(
            student_logits, teacher_logits, self.edges, self.temperature, "none"
        )
