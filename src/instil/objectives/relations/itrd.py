"""Information-theoretic distillation: correlation of entries and mutual information of samples."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_items, require_same_shape
from instil.functional.similarities import inner_products
from instil.modules.adapters import match_dtype
from instil.objectives.bases.relation_objective import RelationObjective

VARIANCE_EPSILON = 1e-12


@check_bounds
def itrd_correlation_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, order: Positive = 1.01
) -> Tensor:
    """Correlation loss of Miles et al. (2022).

    Logarithm (base 2) of the sum, over the D entries, of ``(1 - correlation) ** (2 * order)``.
    Correlations are over the N samples, as in the authors' code: covariances are divided by N,
    variances by N - 1.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        order: Renyi's alpha, > 0.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> itrd_correlation_loss(torch.eye(3), torch.eye(3).flip(0))
        tensor(1.8816)
    """
    student_standard, teacher_standard = (
        _standardize(embedding)
        for embedding in require_same_shape(
            student_embedding, teacher_embedding, "itrd_correlation_loss"
        )
    )
    correlation = (student_standard * teacher_standard).sum(0) / max(1, len(student_standard))
    total = (1 - correlation).abs().pow(2 * order).sum()
    # Bounded below, because the logarithm of a perfect match would be minus infinity.
    return total.clamp_min(torch.finfo(total.dtype).tiny).log2()


def _standardize(samples: Tensor) -> Tensor:
    deviation = samples - samples.mean(0)
    variance = deviation.square().sum(0) / max(1, len(samples) - 1)
    return deviation * variance.clamp_min(VARIANCE_EPSILON).rsqrt()


def itrd_mutual_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Mutual information loss of Miles et al. (2022).

    Sum of the squares of the student's Gram matrix minus that of its elementwise product with the
    teacher's. Embeddings are scaled to unit length, and both matrices have trace 1. This is a bound
    on the mutual information by Renyi entropies of order 2, without their logarithm.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> itrd_mutual_loss(torch.ones(3, 2), torch.eye(3))
        tensor(0.6667)
    """
    require_same_items(student_embedding, teacher_embedding, "itrd_mutual_loss")
    student_gram = inner_products(l2_normalize(student_embedding))
    joint = student_gram * inner_products(l2_normalize(teacher_embedding))
    return _squares_at_trace_one(student_gram) - _squares_at_trace_one(joint)


def _squares_at_trace_one(matrix: Tensor) -> Tensor:
    """Sum of the squared entries of the matrix over its trace."""
    squares: Tensor = torch.linalg.vecdot(matrix, matrix).sum()
    return squares / matrix.diagonal().sum().clamp_min(VARIANCE_EPSILON).square()


class ITRD(RelationObjective):
    """Correlation of the embeddings' entries and mutual information of the samples.

    Embeddings are (N, D) of any widths. A learned linear map projects the student's for the
    correlation, and for the mutual information if the widths differ.
    """

    card = Card(
        "Information theoretic representation distillation",
        "https://arxiv.org/abs/2112.00459",
        "BMVC",
        2022,
        source="relations",
        couples=True,
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, WRN-16-2 <- WRN-40-2, without kd",
        deviations="The mutual information has no logarithm, as in the code. At a match the "
        "correlation loss is not zero.",
        equation=r"\lambda_c \log_2 \sum_{d=1}^{D} \left| 1 - c_d \right|^{2\alpha} + \lambda_m "
        r"\left( \Vert \bar{G}^s \Vert_F^2 - \Vert \overline{G^s \odot G^t} \Vert_F^2 \right), "
        r"\quad c_d = \mathrm{corr}_n\left(h(f^s_n)_d, f^t_{nd}\right), \quad \bar{G} = "
        r"\frac{G}{\mathrm{tr} G}",
        use="For classification with any two networks, when embeddings should agree up to scale "
        "and shift of each entry and no memory is available. Cost: one linear map; an N x N "
        "matrix.",
        pitfalls="The loss becomes negative in successful runs because of the logarithm. The "
        "statistics come from the batch: it needs many more than two samples, and gradient "
        "accumulation changes the loss. The authors' script uses mutual 0.05 and order 1.5; their "
        "example for two wide ResNets uses the defaults here.",
    )

    def __init__(
        self,
        correlation: Annotated[NonNegative, Doc("weight of the correlation")] = 2.0,
        mutual: Annotated[NonNegative, Doc("weight of the mutual information")] = 1.0,
        order: Annotated[
            Positive,
            Doc(
                "Renyi's alpha in the correlation; 1.01 for networks of one family, 1.5 for others"
            ),
        ] = 1.01,
    ):
        super().__init__()
        self.correlation = correlation
        self.mutual = mutual
        self.order = order
        self.head: nn.Module = nn.Identity()

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        # Created for equal widths too: the correlation loss always reads the projection.
        self.head = nn.Linear(
            student.shape[1], teacher.shape[1], device=student.device, dtype=student.dtype
        )
        return super().connect(student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        projected = self.head(match_dtype(self.head, student_embedding))
        same_width = student_embedding.shape == teacher_embedding.shape
        mutual = itrd_mutual_loss(student_embedding if same_width else projected, teacher_embedding)
        correlation = itrd_correlation_loss(projected, teacher_embedding, self.order)
        return self.correlation * correlation + self.mutual * mutual
