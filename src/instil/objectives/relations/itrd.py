"""Information-theoretic distillation: correlate with the teacher entry by entry, and share information with it sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Positive
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import inner_products
from instil.modules.adapters import match_dtype
from instil.objectives.bases.relation_objective import RelationObjective

VARIANCE_EPSILON = 1e-12


def itrd_correlation_loss(student: Tensor, teacher: Tensor, order: float = 1.01) -> Tensor:
    """Logarithm (base 2) of the sum over the D entries of (1 - correlation) ** (2 * ``order``) (Miles et al. 2022); a scalar.

    Embeddings (N, D); correlations are over the N samples, as the code takes them: covariances over N, deviations over N - 1.
    """
    mine, theirs = (
        _standardized(side)
        for side in require_same_shape(student, teacher, "itrd_correlation_loss")
    )
    correlation = (mine * theirs).sum(0) / max(1, len(mine))
    return (
        (1 - correlation).abs().pow(2 * order).sum().clamp_min(torch.finfo(mine.dtype).tiny).log2()
    )


def _standardized(samples: Tensor) -> Tensor:
    deviation = samples - samples.mean(0)
    variance = deviation.square().sum(0) / max(1, len(samples) - 1)
    return deviation * variance.clamp_min(VARIANCE_EPSILON).rsqrt()


def itrd_mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of squares of the student's Gram matrix less that of its product, entry by entry, with the teacher's (Miles et al. 2022); a scalar.

    Embeddings (N, D) of any widths, to unit length; both matrices have trace 1. It is a bound on the mutual information's Renyi entropies of order
    2, without their logarithm.
    """
    mine = inner_products(l2_normalize(student))
    both = mine * inner_products(l2_normalize(teacher))
    return _squares_at_trace_one(mine) - _squares_at_trace_one(both)


def _squares_at_trace_one(matrix: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vecdot(matrix, matrix).sum()
    return squares / matrix.diagonal().sum().clamp_min(VARIANCE_EPSILON).square()


class ITRD(RelationObjective):
    """Correlation of entries after a learned linear map, and mutual information of samples (before it where the widths agree).

    ``correlation``: weight of the correlation.
    ``mutual``: weight of the mutual information.
    ``order``: Renyi's alpha in the correlation; the authors' 1.01 for nets of one family, 1.5 for others.
    """

    card = Card(
        "Information theoretic representation distillation",
        "https://arxiv.org/abs/2112.00459",
        "BMVC",
        2022,
        source="relations",
        couples=True,
        zero_at_match=False,
        deviations="the mutual information is without its logarithm, as in the code; at a match the correlation's loss is not zero",
        equation=r"\lambda_c \log_2 \sum_{d=1}^{D} \left| 1 - c_d \right|^{2\alpha} + \lambda_m \left( \Vert \bar{G}^s \Vert_F^2 - \Vert "
        r"\overline{G^s \odot G^t} \Vert_F^2 \right), \quad c_d = \mathrm{corr}_n\left(h(f^s_n)_d, f^t_{nd}\right), \quad \bar{G} = "
        r"\frac{G}{\mathrm{tr} G}",
        use="For classification with any two nets, where embeddings are to agree up to scale and shift of each entry and no memory is wanted. "
        "Cost: one linear map; an N x N matrix.",
        pitfalls="The loss is below zero when all goes well, because of the logarithm. The statistics are of the batch: it needs many more than "
        "two samples, and gradient accumulation changes it. The authors' script starts from mutual 0.05 and order 1.5, their example for "
        "two wide ResNets from the numbers here; they use it without kd, with weight 1 on cross-entropy.",
    )

    def __init__(
        self, correlation: NonNegative = 2.0, mutual: NonNegative = 1.0, order: Positive = 1.01
    ):
        super().__init__()
        self.correlation, self.mutual, self.order = correlation, mutual, order
        self.head: nn.Module = nn.Identity()

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        self.head = nn.Linear(
            student.shape[1], teacher.shape[1], device=student.device, dtype=student.dtype
        )
        return super().connect(student, teacher)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        aligned = self.head(match_dtype(self.head, student))
        mutual = itrd_mutual_loss(student if student.shape == teacher.shape else aligned, teacher)
        return (
            self.correlation * itrd_correlation_loss(aligned, teacher, self.order)
            + self.mutual * mutual
        )
