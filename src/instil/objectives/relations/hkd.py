"""Information flow: neighbour probabilities at every level; early levels matter at the start."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_same_items
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.similarities import inner_products, pairwise_squared_distances
from instil.objectives.bases.feature_objective import FeatureObjective

KERNELS = ("combined", "cosine", "student_t", "adaptive_rbf", "rbf", "cauchy")
DIVERGENCES = ("jeffreys", "kl", "squared", "abs", "exponential", "kagan")
EPSILON = 1e-6
"""Constant added to lengths and squared distances."""
Kernel = Literal["combined", "cosine", "student_t", "adaptive_rbf"]
Divergence = Literal["jeffreys", "kl", "squared"]


def hkd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    kernel: str = "combined",
    divergence: str = "jeffreys",
    epsilon: float = 0.0,
    teacher_kernel: str = "",
) -> Tensor:
    """Divergence of the neighbour probabilities of the samples (Passalis et al. 2020).

    Mean over the N * N pairs of samples, each sample with itself included.

    Args:
        student_features: (N, ...).
        teacher_features: (N, ...), of any shape.
        kernel: similarity of two samples. ``"cosine"``, ``"student_t"``, ``"adaptive_rbf"``
            (exponential of the negative distance over the mean distance), ``"rbf"``, ``"cauchy"``
            (both of scale 1), or ``"combined"`` (sum of the losses of cosine and student_t).
        divergence: ``"jeffreys"``, ``"kl"``, ``"squared"``, ``"abs"``, ``"exponential"`` or
            ``"kagan"``.
        epsilon: constant inside the logarithm of ``kl`` and in its denominator; 1e-6 in the
            authors' code.
        teacher_kernel: kernel of the teacher. Empty: the same as ``kernel``.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ, ``kernel`` or ``divergence`` is unknown.

    Example:
        >>> import torch
        >>> hkd_loss(torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), torch.eye(3))
        tensor(0.0236)
    """
    require_same_items(student_features, teacher_features, "hkd_loss")
    require_choice("kernel", kernel, KERNELS)
    require_choice("divergence", divergence, DIVERGENCES)
    if kernel == "combined":
        return hkd_loss(
            student_features, teacher_features, "cosine", divergence, epsilon
        ) + hkd_loss(student_features, teacher_features, "student_t", divergence, epsilon)
    student_probs = _neighbour_probs(student_features, kernel)
    teacher_probs = _neighbour_probs(teacher_features, teacher_kernel or kernel)
    total = _divergence(teacher_probs, student_probs, divergence, epsilon).sum()
    return total / max(1, len(student_features) ** 2)


def _neighbour_probs(samples: Tensor, kernel: str) -> Tensor:
    """Probabilities (N, N): entry [i, j] is that of j, which may equal i, as a neighbour of i."""
    similarity = _similarity(samples, kernel)
    # Similarities underflow for opposite samples and for those very far from each other.
    similarity = similarity.clamp_min(torch.finfo(similarity.dtype).tiny)
    return similarity / similarity.sum(1, keepdim=True)


def _similarity(samples: Tensor, kernel: str) -> Tensor:
    if kernel == "cosine":
        flat = to_float32(samples).flatten(1)
        unit = flat / (torch.linalg.vector_norm(flat, dim=1, keepdim=True) + EPSILON)
        return (inner_products(unit) + 1) / 2
    distance = (pairwise_squared_distances(samples) + EPSILON).sqrt()
    if kernel == "student_t":
        return 1 / (1 + distance)
    if kernel == "cauchy":
        return 1 / (1 + distance.square())
    # Detached: the width of the kernel adapts to the samples and is not trained.
    scale = distance.detach().mean() if kernel == "adaptive_rbf" else 1
    return (-distance / scale).exp()


def _divergence(
    teacher_probs: Tensor, student_probs: Tensor, divergence: str, epsilon: float
) -> Tensor:
    """Divergence of each entry."""
    if divergence == "jeffreys":
        return (teacher_probs - student_probs) * (teacher_probs.log() - student_probs.log())
    if divergence == "kl":
        return teacher_probs * (epsilon + teacher_probs / (epsilon + student_probs)).log()
    if divergence == "exponential":
        return teacher_probs * (teacher_probs.log() - student_probs.log()).square()
    if divergence == "abs":
        return (teacher_probs - student_probs).abs()
    squared = (teacher_probs - student_probs).square()
    return squared / teacher_probs if divergence == "kagan" else squared


class HKD(FeatureObjective):
    """Agreement of the neighbour probabilities at every pair of feature levels.

    The deepest pair has weight 1. The weight of the others falls during training. Features are
    (N, ...) of any shapes.
    """

    card = Card(
        "Heterogeneous knowledge distillation using information flow modeling",
        "https://arxiv.org/abs/2005.00727",
        "CVPR",
        2020,
        source="relations",
        couples=True,
        deviations="Mean over the pairs of samples, each with itself too, as in the code. The "
        "weight of the early levels falls with the progress of training instead of once per "
        "epoch. The auxiliary teacher between a large teacher and a small student is a stage of a "
        "recipe.",
        equation=r"\sum_{l=1}^{L} \frac{w_l}{N^2} \sum_{k} \sum_{i,j} \left(p^t_{ij} - "
        r"p^s_{ij}\right) \log \frac{p^t_{ij}}{p^s_{ij}}, \quad p_{ij} = \frac{k(f_i, "
        r"f_j)}{\sum_m k(f_i, f_m)}, \quad k \in \left\lbrace \tfrac{1 + \cos(a, b)}{2}, "
        r"\tfrac{1}{1 + \Vert a - b \Vert} \right\rbrace",
        use="For a small student whose early layers should form like the teacher's at the start "
        "of training, between networks of any kind: levels are flattened and nothing is learned. "
        "An N x N matrix per level.",
        pitfalls="Pairing by depth matters: layers that represent different things in the two "
        "networks conflict with weight 100 at the start. SemCKD's copy computes the falling "
        "weight and does not apply it. Student's t depends on the scale of the features, the "
        "cosine does not.",
    )

    def __init__(
        self,
        kernel: Annotated[
            Kernel,
            Doc("similarity of two samples; combined: sum of the losses of cosine and Student's t"),
        ] = "combined",
        divergence: Annotated[
            Divergence,
            Doc("divergence of the probabilities: Jeffreys, Kullback-Leibler or squared error"),
        ] = "jeffreys",
        intermediate: Annotated[
            NonNegative, Doc("initial weight of the levels before the deepest")
        ] = 100.0,
        decay: Annotated[
            Positive,
            Doc(
                "factor of that weight at the end of training; the default is the authors' 0.7 "
                "per epoch for 10 epochs"
            ),
        ] = 0.028,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.kernel = kernel
        self.divergence = divergence
        self.intermediate = intermediate
        self.decay = decay

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "neighbours of the samples"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels = feature_levels(student)
        teacher_levels = feature_levels(teacher)
        terms = [
            hkd_loss(student_levels[i], teacher_levels[j], self.kernel, self.divergence)
            for i, j in self.matched
        ]
        # The last pair keeps its weight; the others fade in the course of training.
        early = self.intermediate * self.decay ** float(batch.get("progress", 0.0))
        return torch.stack([*(early * term for term in terms[:-1]), terms[-1]]).sum()
