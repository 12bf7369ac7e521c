"""Information flow: how likely samples are neighbours, at every stage; early stages count while training is young."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, Positive, closest, to_float32
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.similarities import inner_products, pairwise_squared_distances
from instil.objectives.bases.feature_objective import FeatureObjective

KERNELS = ("combined", "cosine", "student_t", "adaptive_rbf", "rbf", "cauchy")
DIVERGENCES = ("jeffreys", "kl", "squared", "abs", "exponential", "kagan")
EPSILON = 1e-6  # of lengths and squared distances
Kernel = Literal["combined", "cosine", "student_t", "adaptive_rbf"]
Divergence = Literal["jeffreys", "kl", "squared"]


def hkd_loss(
    student: Tensor,
    teacher: Tensor,
    kernel: str = "combined",
    divergence: str = "jeffreys",
    epsilon: float = 0.0,
    teacher_kernel: str = "",
) -> Tensor:
    """Divergence of the probabilities with which samples are neighbours, averaged over the N * N pairs (Passalis et al. 2020).

    Samples (N, ...) of any shapes; a scalar. Kernels: ``cosine``, ``student_t``, ``adaptive_rbf`` (exp of the distance over the mean distance),
    ``rbf`` and ``cauchy`` (both of scale 1); ``combined`` sums the losses of cosine and student_t. ``teacher_kernel``: where it is another one.
    ``epsilon``: added inside the logarithm of ``kl``, and to its denominator; in the authors' code 1e-6.
    """
    for name, value, known in (
        ("kernel", kernel, KERNELS),
        ("divergence", divergence, DIVERGENCES),
    ):
        if value not in known:
            raise ValueError(f"{name}: no {name} '{value}'; {closest(value, known)}")
    if kernel == "combined":
        return hkd_loss(student, teacher, "cosine", divergence, epsilon) + hkd_loss(
            student, teacher, "student_t", divergence, epsilon
        )
    mine, theirs = _neighbours(student, kernel), _neighbours(teacher, teacher_kernel or kernel)
    return _divergence(theirs, mine, divergence, epsilon).sum() / max(1, len(student) ** 2)


def _neighbours(samples: Tensor, kernel: str) -> Tensor:
    """[i, j]: the probability of j, which may be i itself, as the neighbour of i."""
    if kernel == "cosine":
        flat = to_float32(samples).flatten(1)
        likeness = (
            inner_products(flat / (torch.linalg.vector_norm(flat, dim=1, keepdim=True) + EPSILON))
            + 1
        ) / 2
    else:
        distance = (pairwise_squared_distances(samples) + EPSILON).sqrt()
        if kernel == "student_t":
            likeness = 1 / (1 + distance)
        elif kernel == "cauchy":
            likeness = 1 / (1 + distance.square())
        else:
            likeness = (
                -distance / (distance.detach().mean() if kernel == "adaptive_rbf" else 1)
            ).exp()
    likeness = likeness.clamp_min(
        torch.finfo(likeness.dtype).tiny
    )  # opposite samples, and those very far apart
    return likeness / likeness.sum(1, keepdim=True)


def _divergence(p: Tensor, q: Tensor, divergence: str, epsilon: float) -> Tensor:
    """Entry by entry; p is the teacher's."""
    if divergence == "jeffreys":
        return (p - q) * (p.log() - q.log())
    if divergence == "kl":
        return p * (epsilon + p / (epsilon + q)).log()
    if divergence == "exponential":
        return p * (p.log() - q.log()).square()
    difference = (p - q).abs() if divergence == "abs" else (p - q).square()
    return difference / p if divergence == "kagan" else difference


class HKD(FeatureObjective):
    """Neighbour probabilities agree at every pair of stages: weight 1 at the deepest, at the others one that falls while training goes on.

    ``kernel``: how alike samples are; combined is the sum over cosine and Student's t.
    ``divergence``: Jeffreys' or the Kullback-Leibler one, or squared differences.
    ``intermediate``: weight of the stages before the deepest when training begins.
    ``decay``: what is left of that weight when it ends; the authors' 0.7 an epoch for 10 epochs.
    """

    card = Card(
        "Heterogeneous knowledge distillation using information flow modeling",
        "https://arxiv.org/abs/2005.00727",
        "CVPR",
        2020,
        source="relations",
        couples=True,
        deviations="mean over the pairs of samples, each with itself too, as in the code; the weight of the early stages falls with progress in "
        "place of once an epoch; the auxiliary teacher between a large teacher and a small student is a recipe's stage",
        equation=r"\sum_{l=1}^{L} \frac{w_l}{N^2} \sum_{k} \sum_{i,j} \left(p^t_{ij} - p^s_{ij}\right) \log \frac{p^t_{ij}}{p^s_{ij}}, \quad p_{ij} "
        r"= \frac{k(f_i, f_j)}{\sum_m k(f_i, f_m)}, \quad k \in \left\lbrace \tfrac{1 + \cos(a, b)}{2}, \tfrac{1}{1 + \Vert a - b \Vert} "
        r"\right\rbrace",
        use="For a small student whose early layers should form as the teacher's do while training is young, between nets of any kind: stages "
        "are flattened, nothing is learned. An N x N matrix a stage.",
        pitfalls="Pairing by depth matters: layers that say different things in the two nets push each other with weight 100 at the start. "
        "SemCKD's copy computes the falling weight and does not apply it. Student's t sees the scale of the features, the cosine does "
        "not.",
    )

    def __init__(
        self,
        kernel: Kernel = "combined",
        divergence: Divergence = "jeffreys",
        intermediate: NonNegative = 100.0,
        decay: Positive = 0.028,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        self.kernel, self.divergence, self.intermediate, self.decay = (
            kernel,
            divergence,
            intermediate,
            decay,
        )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "neighbours of the samples"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = [
            hkd_loss(mine[i], theirs[j], self.kernel, self.divergence) for i, j in self.matched
        ]
        early = self.intermediate * self.decay ** float(batch.get("progress", 0.0))
        return torch.stack([*(early * term for term in terms[:-1]), terms[-1]]).sum()
