"""Centred kernel alignment: the samples lie to each other as in the teacher, up to rotation and scale."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Positive, closest, to_float32
from instil.functional.directions import pairwise_dot
from instil.functional.similarities import centred, inner_products, pairwise_squared_distances
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["linear", "rbf"]


def cka_loss(
    student: Tensor,
    teacher: Tensor,
    kernel: Kernel = "linear",
    bandwidth: float = 0.5,
    centre: bool = True,
) -> Tensor:
    """1 - CKA, the cosine of the two sides' centred kernel matrices (Kornblith et al. 2019); a scalar in [0, 1].

    Embeddings (N, ...) of any widths. ``bandwidth`` of the Gaussian, in root mean squared distances between the samples. A side whose samples
    are all alike, as one sample is, has no alignment: the loss is 1 there, without a gradient.
    """
    if kernel not in ("linear", "rbf"):
        raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, ('linear', 'rbf'))}")
    flat = [to_float32(samples).flatten(1) for samples in (student, teacher)]
    if kernel == "linear" and max(side.shape[1] for side in flat) < len(student):
        return 1 - _by_features(*(side - side.mean(0) if centre else side for side in flat))
    matrices = [
        inner_products(side) if kernel == "linear" else _gaussian(side, bandwidth) for side in flat
    ]
    mine, theirs = (
        F.normalize((centred(matrix) if centre else matrix).flatten(), dim=0) for matrix in matrices
    )
    return 1 - (mine * theirs).sum()


def _by_features(student: Tensor, teacher: Tensor) -> Tensor:
    """The cosine of the Gram matrices (N, N) of samples (N, D), from matrices (D, D): tr(AA' BB') is the squared length of A'B."""
    mine, theirs = (
        side / torch.linalg.vector_norm(side.detach()).clamp_min(torch.finfo(side.dtype).tiny)
        for side in (student, teacher)
    )
    between, within, within_teacher = (
        pairwise_dot(theirs.mT, mine.mT),
        pairwise_dot(mine.mT, mine.mT),
        pairwise_dot(theirs.mT, theirs.mT),
    )
    lengths = torch.linalg.vector_norm(within) * torch.linalg.vector_norm(within_teacher)
    cosine: Tensor = between.square().sum() / lengths.clamp_min(1e-12)
    return cosine


def _gaussian(samples: Tensor, bandwidth: float) -> Tensor:
    squared = pairwise_squared_distances(samples)
    mean = squared.detach().sum() / max(1, len(samples) * (len(samples) - 1))
    return (-squared / (2 * bandwidth**2 * mean).clamp_min(1e-12)).exp()


class CKA(RelationObjective):
    """The batch's embeddings align with the teacher's under a kernel; widths may differ, and nothing is learned in between.

    ``kernel``: linear or Gaussian (rbf).
    ``bandwidth``: of the Gaussian, in root mean squared distances between the samples.
    ``centre``: whether the kernel matrices are centred.
    """

    card = Card(
        "Rethinking centered kernel alignment in knowledge distillation",
        "https://arxiv.org/abs/2401.11824",
        "IJCAI",
        2024,
        source="relations",
        couples=True,
        deviations="1 - CKA of the samples, as Kornblith et al. (ICML 2019) define it, with their bandwidth counted in root mean squared distances "
        "in place of medians; the paper's code does not centre (centre: false), and its term over classes and patches are not here",
        equation=r"1 - \frac{\langle H K^s H, H K^t H \rangle_F}{\Vert H K^s H \Vert_F \Vert H K^t H \Vert_F}, \quad K_{ij} = f_i^\top f_j, \quad H "
        r"= I - \tfrac{1}{N} \mathbf{1}\mathbf{1}^\top",
        use="Where the teacher's embedding is wider or of another kind of net and only the arrangement of the samples is to carry over, free "
        "to be rotated and scaled. No parameters; an N x N matrix.",
        pitfalls="With few samples in a batch CKA is biased towards 1, so that small batches give a weak signal. The value lies in [0, 1] and its "
        "gradient fades as the embeddings grow, because their scale is free.",
    )

    def __init__(self, kernel: Kernel = "linear", bandwidth: Positive = 0.5, centre: bool = True):
        super().__init__()
        self.kernel, self.bandwidth, self.centre = kernel, bandwidth, centre

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return cka_loss(student, teacher, self.kernel, self.bandwidth, self.centre)
