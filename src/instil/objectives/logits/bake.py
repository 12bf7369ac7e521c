"""Batch knowledge ensembling: what a sample's likenesses in the batch are predicted to be becomes part of its target."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, Positive, full
from instil.functional.divergences import kl_divergence
from instil.functional.logits import reduced, require_classes


def bake_targets(probability: Tensor, embedding: Tensor, omega: float = 0.5) -> Tensor:
    """(1 - omega) (I - omega A)^-1 P: probabilities (N, C) carried on along the affinities A of embeddings (N, D) (Ge et al. 2021, Eq. 5).

    A row of A is a softmax over the cosines to the other samples.
    """
    direction = F.normalize(full(embedding), dim=1)
    affinity = (direction @ direction.T).fill_diagonal_(-1e9).softmax(1)
    system = -omega * affinity
    system.diagonal().add_(1)
    carried: Tensor = torch.linalg.solve(system, full(probability))
    return (1 - omega) * carried


def bake_loss(
    student: Tensor,
    embedding: Tensor,
    temperature: float = 4.0,
    omega: float = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(Q || student) at temperature T, where Q are the batch's own ensembled predictions, to which no gradient flows (Ge et al. 2021, Eq. 7).

    Logits (N, C) and embeddings (N, D) of one batch; (N,) for reduction ``none``. Raises ValueError for one class and where shapes do not fit.
    """
    require_classes(student, 2)
    if student.ndim != 2 or embedding.ndim != 2 or len(student) != len(embedding):
        raise ValueError(
            f"logits {tuple(student.shape)} and embeddings {tuple(embedding.shape)}; expected (N, C) and (N, D)"
        )
    soft = (full(student) / temperature).log_softmax(-1)
    with torch.no_grad():
        target = bake_targets(soft.exp(), embedding, omega).clamp_min(0).log()
    return reduced(temperature**2 * kl_divergence(target, soft), reduction)


class BAKE(Objective):
    """Each sample's prediction follows those of the batch that are like it, and of those that are like them; logits (N, C), embedding (N, D).

    ``temperature``: divides the logits.
    ``omega``: how much of a target comes from the other samples.
    """

    card = Card(
        "Self-distillation with Batch Knowledge Ensembling Improves ImageNet Classification",
        "https://arxiv.org/abs/2104.13298",
        "arXiv",
        2021,
        source="logits",
        labels=("single",),
        couples=True,
        zero_at_match=False,
        equation=r"T^2 \mathrm{KL}(Q \Vert p_T), \quad Q = (1 - \omega) (I - \omega A)^{-1} p_T, \quad A_{nm} = \mathrm{softmax}_{m \ne n} "
        r"\cos(f_n, f_m)",
        use="Self-distillation without a teacher, memory or second forward pass, where classes are alike. The paper draws for each sample "
        "another of its class: data.sampler class_pairs.",
        pitfalls="The affinities are a softmax of plain cosines, which is nearly flat: in a batch of random samples the targets come near the "
        "batch's mean prediction. It needs a label loss beside it, and a batch with likenesses in it.",
    )
    needs: ClassVar = {"student": (("logits",), ("embedding",)), "teacher": ()}

    def __init__(self, temperature: Positive = 4.0, omega: Annotated[float, Ge(0), Lt(1)] = 0.5):
        super().__init__()
        self.temperature, self.omega = temperature, omega

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return bake_loss(student["logits"], student["embedding"], self.temperature, self.omega)
