"""PHI-S: teachers' patches, rotated so that all channels have the same variance and scaled to 1, are regressed on equal terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, full
from instil.objectives.adapters import comparable
from instil.objectives.errors import squared_error
from instil.objectives.hadamard import equalizing_rotation
from instil.objectives.logit_objective import reduced
from instil.objectives.patch_matching import SMALLEST_DEVIATION, PatchObjective, Statistics


def phi_s_matrix(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and matrix W (D, D) of rows (M, D): (x - mean) W^T has variance 1 in every channel, all directions being scaled alike.

    W = H U^T / sqrt(mean eigenvalue) with U the eigenvectors of the covariance and H a normalized Hadamard matrix (Ranzinger et al. 2025),
    computed in float64 on the CPU.
    """
    rows = features.detach().to("cpu", torch.float64)
    covariance = torch.cov(rows.T, correction=min(1, len(rows) - 1)).reshape(rows.shape[1], -1)
    return rows.mean(0).to(features), phi_s_rotation(covariance).to(features)


def phi_s_rotation(covariance: Tensor) -> Tensor:
    """The matrix W (D, D) of ``phi_s_matrix`` by the covariance (D, D), in float64 on the CPU."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    deviation = values.mean().sqrt().clamp_min(SMALLEST_DEVIATION)
    rotation: Tensor = equalizing_rotation(values) @ vectors.T / deviation
    return rotation


def phi_s_loss(student: Tensor, teacher: Tensor, mean: Tensor, matrix: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared difference of the student's patches (N, L, D) from the teacher's after ``phi_s_matrix``. Raises ValueError where shapes differ."""
    student, teacher = comparable(student, teacher, "phi_s_loss")
    target = (teacher - mean) @ matrix.mT
    return reduced(squared_error(student, target), reduction)


class Standard(Statistics):
    """Takes what is like the tokens that it knows to mean 0 and, in every channel, variance 1."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        width, like = tokens.shape[-1], full(tokens)
        self.register_buffer("mean", like.new_zeros(width))
        self.register_buffer("matrix", like.new_zeros(width, width))
        self.mean: Tensor
        self.matrix: Tensor
        self.settle(self.moments(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return (full(tokens) - self.mean) @ self.matrix.mT

    def moments(self, tokens: Tensor) -> Tensor:
        rows = tokens.detach().flatten(0, -2).double()
        return torch.cat([rows.new_tensor([len(rows)]), rows.sum(0), (rows.mT @ rows).flatten()])[None]

    def settle(self, moments: Tensor) -> None:
        width = len(self.mean)
        count, total, products = torch.split(moments.sum(0).cpu(), [1, width, width**2])
        covariance = (products.view(width, width) - torch.outer(total, total) / count) / (count - 1).clamp_min(1)
        self.mean.copy_(total / count)
        self.matrix.copy_(phi_s_rotation(covariance))


class PhiS(PatchObjective):
    """The deepest stage, through a 1x1 convolution for each teacher, regresses that teacher's standardized patches; mean over the teachers.

    ``studies``: samples of which a teacher's statistics are taken before training, without their labels; 0: those of the first batch.

    The standardization takes the place of weights a teacher.
    """

    card = Card(
        "PHI-S: distribution balancing for label-free multi-teacher distillation",
        "https://arxiv.org/abs/2410.01680",
        "ICLR",
        2025,
        source="features",
        algorithms=("multi-teacher",),
        zero_at_match=False,
        deviations="statistics of a number of samples before training, so that targets stand still; a width that has no Hadamard matrix is rotated "
        "so that its variances are exactly alike, in the code by a random matrix about alike; patches only, no summary token",
        equation=r"\frac{1}{K} \sum_k \frac{1}{L D_k} \sum_p \lVert r_k(f^s_p) - W_k (f^{t_k}_p - \mu_k) \rVert_2^2, \quad W_k = "
        r"\frac{1}{\sqrt{\bar\lambda_k}} H U_k^\top",
        use="Several foundation models as teachers whose features differ in scale by orders: none dominates, and no labels are needed. It costs a "
        "1x1 convolution and a matrix of its width squared for each teacher.",
        pitfalls="The samples that are studied must have more patches than a teacher has channels, else the rotation is not determined; plain "
        "loops that do not go through fit have the statistics of the first batch. What is predicted is in rotated units: undo matrix and mean before "
        "a teacher's head reads it.",
    )

    def prepare(self, tokens: Tensor) -> nn.Module:
        return Standard(tokens)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        terms = []
        for mine, theirs, target in self.paired(student, teacher):
            assert isinstance(target, Standard)
            terms.append(phi_s_loss(mine, theirs, target.mean, target.matrix, "none"))
        return torch.stack(terms).mean(0)
