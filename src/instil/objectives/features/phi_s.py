"""PHI-S: teachers' patches, rotated so that all channels have the same variance and scaled to 1, are regressed on equal terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.phi_standard import phi_s_rotation
from instil.modules.normalizers import PHIStandardize
from instil.objectives.bases.patch_objective import PatchObjective


def phi_s_matrix(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and matrix W (D, D) of rows (M, D): (x - mean) W^T has variance 1 in every channel, all directions being scaled alike.

    W = H U^T / sqrt(mean eigenvalue) with U the eigenvectors of the covariance and H a normalized Hadamard matrix (Ranzinger et al. 2025),
    computed in float64 on the CPU.
    """
    rows = features.detach().to("cpu", torch.float64)
    covariance = torch.cov(rows.T, correction=min(1, len(rows) - 1)).reshape(rows.shape[1], -1)
    return rows.mean(0).to(features), phi_s_rotation(covariance).to(features)


def phi_s_loss(
    student: Tensor, teacher: Tensor, mean: Tensor, matrix: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of the student's patches (N, L, D) from the teacher's after ``phi_s_matrix``. Raises ValueError where shapes differ."""
    student, teacher = require_same_shape(student, teacher, "phi_s_loss")
    target = (teacher - mean) @ matrix.mT
    return apply_reduction(squared_error(student, target), reduction)


class PhiS(PatchObjective):
    """The deepest stage, through a 1x1 convolution for each teacher, regresses that teacher's standardized patches; mean over the teachers.

    ``calibration_samples``: samples of which a teacher's statistics are taken before training, without their labels; 0: those of the first batch.

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

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return PHIStandardize(tokens)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        terms = []
        for mine, theirs, target in self.matched_pairs(student, teacher):
            assert isinstance(target, PHIStandardize)
            terms.append(phi_s_loss(mine, theirs, target.mean, target.matrix, "none"))
        return torch.stack(terms).mean(0)
