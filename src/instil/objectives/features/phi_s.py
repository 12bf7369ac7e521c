"""PHI-S: regression of several teachers' patches, standardized to variance 1 in every channel."""

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
    """Mean and standardization matrix of features (Ranzinger et al. 2025).

    ``(x - mean) @ W.T`` has variance 1 in every channel, and one scale for all directions:
    ``W = H U^T / sqrt(mean eigenvalue)``. U holds the eigenvectors of the covariance and H is a
    normalized Hadamard matrix. The matrix is computed in float64 on the CPU.

    Args:
        features: rows (M, D).

    Returns:
        Mean (D,) and matrix W (D, D), in the precision of ``features``.
    """
    rows = features.detach().to("cpu", torch.float64)
    covariance = torch.cov(rows.T, correction=min(1, len(rows) - 1)).reshape(rows.shape[1], -1)
    return rows.mean(0).to(features), phi_s_rotation(covariance).to(features)


def phi_s_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    mean: Tensor,
    matrix: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """PHI-S loss: mean squared difference to standardized teacher patches (Ranzinger et al. 2025).

    Args:
        student_features: patch tokens (N, L, D).
        teacher_features: patch tokens (N, L, D).
        mean: mean (D,) of the teacher's patches, from ``phi_s_matrix``.
        matrix: standardization matrix (D, D), from ``phi_s_matrix``.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> teacher_features = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
        >>> mean, matrix = phi_s_matrix(teacher_features[0])
        >>> phi_s_loss(torch.zeros(1, 2, 2), teacher_features, mean, matrix)
        tensor(0.5000)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "phi_s_loss", 2
    )
    target = (teacher_features - mean) @ matrix.mT
    return apply_reduction(squared_error(student_features, target), reduction)


class PhiS(PatchObjective):
    """Regression of each teacher's standardized patches; mean over the teachers.

    A 1x1 convolution for each teacher maps the student's deepest level. The standardization
    replaces weights for the teachers.
    """

    card = Card(
        "PHI-S: distribution balancing for label-free multi-teacher distillation",
        "https://arxiv.org/abs/2410.01680",
        "ICLR",
        2025,
        source="features",
        algorithms=("multi-teacher",),
        zero_at_match=False,
        deviations="The statistics come from calibration samples before training, so that the "
        "targets do not move. A width without a Hadamard matrix is rotated so that the variances "
        "are exactly equal; the code uses a random matrix, which makes them nearly equal. Only "
        "patches are used, no summary token.",
        equation=r"\frac{1}{K} \sum_k \frac{1}{L D_k} \sum_p \lVert r_k(f^s_p) - W_k (f^{t_k}_p - "
        r"\mu_k) \rVert_2^2, \quad W_k = \frac{1}{\sqrt{\bar\lambda_k}} H U_k^\top",
        use="For several foundation models as teachers whose features differ in scale by orders of "
        "magnitude: none dominates, and no labels are needed. It costs a 1x1 convolution and a "
        "square matrix of its width for each teacher.",
        pitfalls="The calibration samples need more patches than a teacher has channels; otherwise "
        "the rotation is not determined. Custom loops that do not use fit have the statistics of "
        "the first batch. Predictions are in rotated units: undo matrix and mean before a "
        "teacher's head uses them.",
    )

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return PHIStandardize(tokens)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        terms = []
        for student_patches, teacher_patches, target in self.matched_pairs(student, teacher):
            assert isinstance(target, PHIStandardize)
            terms.append(
                phi_s_loss(student_patches, teacher_patches, target.mean, target.matrix, "none")
            )
        return torch.stack(terms).mean(0)
