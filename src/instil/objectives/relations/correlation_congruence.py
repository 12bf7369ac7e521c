"""Correlation congruence: kernel correlations between the samples of a batch agree."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_items, require_same_shape
from instil.functional.similarities import inner_products
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["gaussian", "bilinear"]


@check_bounds
def correlation_congruence_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    kernel: Kernel = "gaussian",
    gamma: Positive = 0.4,
    order: Annotated[int, Ge(1)] = 2,
    normalize: bool = True,
) -> Tensor:
    """Squared difference of the (N, N) correlations, over ``N ** 2`` (Peng et al. 2019).

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.
        kernel: ``"gaussian"``, as a Taylor series that assumes unit length, or ``"bilinear"``: the
            inner product.
        gamma: factor of the squared distance in the Gaussian, > 0.
        order: last order of the Taylor series, >= 1.
        normalize: whether embeddings are scaled to unit length first.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ, or if ``kernel`` is unknown.

    Example:
        >>> import torch
        >>> correlation_congruence_loss(torch.ones(2, 3), torch.eye(2))
        tensor(0.1266)
    """
    require_same_items(student_embedding, teacher_embedding, "correlation_congruence_loss")
    require_choice("kernel", kernel, ("gaussian", "bilinear"))
    correlations = [
        inner_products(l2_normalize(embedding) if normalize else embedding)
        for embedding in (student_embedding, teacher_embedding)
    ]
    if kernel == "gaussian":
        correlations = [_gaussian(products, gamma, order) for products in correlations]
    total = F.mse_loss(correlations[0], correlations[1], reduction="sum")
    return total / max(1, len(student_embedding) ** 2)


def _gaussian(products: Tensor, gamma: float, order: int) -> Tensor:
    """Taylor series of exp(-gamma * squared distance) of unit vectors, from inner products."""
    coefficients = [
        math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power)
        for power in range(order + 1)
    ]
    # Horner's scheme: no power of the products is formed.
    values = coefficients[order] * products
    for coefficient in reversed(coefficients[1:order]):
        values = (values + coefficient) * products
    return values + coefficients[0]


def neighbour_congruence_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Loss that the authors contributed to RepDistiller instead of the paper's formula.

    For each two consecutive samples of the batch, sum over the entries of the product of their
    absolute differences to the teacher; mean over the consecutive samples. The value depends on
    the order of the batch, so no objective uses it.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> neighbour_congruence_loss(torch.ones(3, 2), torch.zeros(3, 2))
        tensor(2.)
    """
    student_embedding, teacher_embedding = require_same_shape(
        student_embedding, teacher_embedding, "neighbour_congruence_loss", 2
    )
    difference = to_float32(student_embedding - teacher_embedding).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()


class CorrelationCongruence(RelationObjective):
    """Agreement of the batch's correlation matrices, of unit embeddings under a kernel.

    Embeddings are (N, D) of any widths.
    """

    card = Card(
        "Correlation congruence for knowledge distillation",
        "https://arxiv.org/abs/1904.01802",
        "ICCV",
        2019,
        source="relations",
        couples=True,
        deviations="torchdistill uses the root of the sum of squares, and leaves the "
        "normalisation to the model. The authors' code in RepDistiller, "
        "neighbour_congruence_loss, depends on the order of the batch.",
        equation=r"\frac{1}{N^2} \sum_{i,j} \left( K^s_{ij} - K^t_{ij} \right)^2, \quad K_{ij} = "
        r"e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} \left(f_i^\top f_j\right)^p, \quad "
        r"\Vert f_i \Vert = 1",
        use="For embeddings of any widths: the similarity of each pair of samples is matched "
        "directly, not relative to other pairs as in pkt. No parameters; an N x N matrix.",
        pitfalls="Values are small (a mean over pairs of differences below 1), so the weight must "
        "be large. The 0.02 of RepDistiller and its copies belongs to another formula, "
        "neighbour_congruence_loss. Batches without several samples of a class contain few "
        "correlated pairs.",
    )

    def __init__(
        self,
        kernel: Annotated[
            Kernel, Doc("gaussian: its Taylor series; bilinear: the inner product")
        ] = "gaussian",
        gamma: Annotated[
            Positive, Doc("factor of the squared distance in the gaussian kernel")
        ] = 0.4,
        order: Annotated[int, Ge(1), Doc("last order of the Taylor series")] = 2,
    ):
        super().__init__()
        self.kernel = kernel
        self.gamma = gamma
        self.order = order

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return correlation_congruence_loss(
            student_embedding, teacher_embedding, self.kernel, self.gamma, self.order
        )
