"""Batch knowledge ensembling: targets propagated between similar samples of a batch."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction, require_classes


def bake_targets(probability: Tensor, embedding: Tensor, omega: float = 0.5) -> Tensor:
    """Propagate predictions along the affinities of a batch (Ge et al. 2021, Eq. 5).

    ``(1 - omega) (I - omega A)^-1 P`` with the affinity matrix A. Each row of A is a softmax over
    the cosine similarities to the other samples.

    Args:
        probability: predictions P (N, C).
        embedding: (N, D).
        omega: weight of the other samples, in [0, 1).

    Returns:
        Targets (N, C).
    """
    direction = F.normalize(to_float32(embedding), dim=1)
    # -1e9 removes a sample's affinity with itself and stays finite in the softmax.
    affinity = (direction @ direction.T).fill_diagonal_(-1e9).softmax(1)
    # A linear system instead of the geometric series: the limit of infinitely many propagation
    # steps.
    system = -omega * affinity
    system.diagonal().add_(1)
    propagated: Tensor = torch.linalg.solve(system, to_float32(probability))
    return (1 - omega) * propagated


@check_bounds
def bake_loss(
    student_logits: Tensor,
    student_embedding: Tensor,
    temperature: Positive = 4.0,
    omega: Annotated[float, Ge(0), Lt(1)] = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence from the batch's ensembled predictions to the student (Ge et al. 2021, Eq. 7).

    The ensembled predictions are those of ``bake_targets``; no gradient flows to them. The
    divergence is multiplied by ``temperature ** 2``.

    Args:
        student_logits: (N, C), of one batch.
        student_embedding: (N, D), of the same batch.
        temperature: softmax temperature, > 0.
        omega: weight of the other samples in a target, in [0, 1).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> bake_loss(torch.eye(3), torch.eye(3))
        tensor(0.0407)
    """
    require_classes(student_logits, 2)
    shapes = student_logits.shape, student_embedding.shape
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            "student_logits, student_embedding: the shapes do not fit. Expected (N, C) and (N, D), "
            f"got {tuple(shapes[0])} and {tuple(shapes[1])}."
        )
    log_probability = (to_float32(student_logits) / temperature).log_softmax(-1)
    # The propagated predictions are constant targets, although they come from the same logits.
    with torch.no_grad():
        targets = bake_targets(log_probability.exp(), student_embedding, omega)
        # The solution of the linear system may be slightly negative by rounding.
        log_targets = targets.clamp_min(0).log()
    return apply_reduction(temperature**2 * kl_divergence(log_targets, log_probability), reduction)


class BAKE(Objective):
    """KL divergence from predictions propagated between similar samples of the batch.

    Logits are (N, C), embeddings (N, D).
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
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, T = 4",
        equation=r"T^2 \mathrm{KL}(Q \Vert p_T), \quad Q = (1 - \omega) (I - \omega A)^{-1} p_T, "
        r"\quad A_{nm} = \mathrm{softmax}_{m \ne n} \cos(f_n, f_m)",
        use="Self-distillation without a teacher, memory or second forward pass, for data with "
        "similar classes. The paper samples a second image of the same class for each sample: "
        "data.sampler class_pairs.",
        pitfalls="The affinities are a softmax of plain cosines, which is nearly flat. In a batch "
        "of random samples the targets are therefore close to the batch's mean prediction. Use "
        "batches that contain similar samples, and a label for each: with few labels the targets "
        "of the other samples outweigh them.",
    )
    needs: ClassVar = {"student": (("logits",), ("embedding",)), "teacher": ()}

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature of predictions and targets")
        ] = 4.0,
        omega: Annotated[float, Ge(0), Lt(1), Doc("weight of the other samples in a target")] = 0.5,
    ):
        super().__init__()
        self.temperature = temperature
        self.omega = omega

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return bake_loss(student["logits"], student["embedding"], self.temperature, self.omega)
