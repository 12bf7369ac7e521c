"""Correlation congruence: the samples of a batch correlate with each other as the teacher says."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Positive, closest, to_float32
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import inner_products
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["gaussian", "bilinear"]


def correlation_congruence_loss(
    student: Tensor,
    teacher: Tensor,
    kernel: Kernel = "gaussian",
    gamma: float = 0.4,
    order: int = 2,
    normalize: bool = True,
) -> Tensor:
    """Squared difference of the two sides' (N, N) correlations, over N squared (Peng et al. 2019); a scalar.

    Embeddings (N, D) of any widths, to unit length first where ``normalize``. The Gaussian kernel is its Taylor series to ``order``, 1 or more, in
    which unit length is supposed; the bilinear one is the inner product.
    """
    if kernel not in ("gaussian", "bilinear"):
        raise ValueError(
            f"kernel: no kernel '{kernel}'; {closest(kernel, ('gaussian', 'bilinear'))}"
        )
    sides = [
        inner_products(l2_normalize(side) if normalize else side) for side in (student, teacher)
    ]
    if kernel == "gaussian":
        sides = [_gaussian(side, gamma, order) for side in sides]
    return F.mse_loss(sides[0], sides[1], reduction="sum") / max(1, len(student) ** 2)


def _gaussian(products: Tensor, gamma: float, order: int) -> Tensor:
    """exp(-gamma * squared distance) of unit vectors with these inner products."""
    coefficients = [
        math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power)
        for power in range(order + 1)
    ]
    values = coefficients[order] * products
    for coefficient in reversed(coefficients[1:order]):
        values = (values + coefficient) * products
    return values + coefficients[0]


def neighbour_congruence_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What the authors gave to RepDistiller in place of the paper's formula, embeddings (N, D): the mean over neighbours in the batch of
    the sum over the entries of the product of their absolute differences to the teacher.

    It depends on the order of the batch, so that no objective offers it. Raises ValueError where the shapes differ.
    """
    mine, theirs = require_same_shape(student, teacher, "neighbour_congruence_loss")
    difference = to_float32(mine - theirs).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()


class CorrelationCongruence(RelationObjective):
    """The batch's correlation matrix, of unit embeddings under a kernel, agrees with the teacher's.

    ``kernel``: gaussian, a Taylor series of it, or bilinear.
    ``gamma``: how fast the Gaussian falls.
    ``order``: where its series ends.
    """

    card = Card(
        "Correlation congruence for knowledge distillation",
        "https://arxiv.org/abs/1904.01802",
        "ICCV",
        2019,
        source="relations",
        couples=True,
        deviations="torchdistill takes the root of the sum of squares, and leaves unit length to the model; the code that RepDistiller has of the "
        "authors, neighbour_congruence_loss, depends on the order of the batch",
        equation=r"\frac{1}{N^2} \sum_{i,j} \left( K^s_{ij} - K^t_{ij} \right)^2, \quad K_{ij} = e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} "
        r"\left(f_i^\top f_j\right)^p, \quad \Vert f_i \Vert = 1",
        use="For embeddings of any widths: the similarity of each pair of samples is told as it is, not among others as in pkt. No "
        "parameters; an N x N matrix.",
        pitfalls="Numbers are small (a mean over pairs of differences below 1), so that the weight must be large. The 0.02 of RepDistiller and its "
        "copies belongs to another formula, neighbour_congruence_loss. Batches without several samples of a class hold little to "
        "correlate.",
    )

    def __init__(
        self, kernel: Kernel = "gaussian", gamma: Positive = 0.4, order: Annotated[int, Ge(1)] = 2
    ):
        super().__init__()
        self.kernel, self.gamma, self.order = kernel, gamma, order

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return correlation_congruence_loss(student, teacher, self.kernel, self.gamma, self.order)
