"""Neuron selectivity transfer: the student's channels are distributed over the positions as the teacher's are."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Card, closest, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, resize, smaller_grid
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Kernel = Literal["polynomial", "gaussian", "linear"]
KERNELS = ("polynomial", "gaussian", "linear")
NARROWEST = 1e-6  # squared width of the Gaussian kernel


def nst_loss(
    student: Tensor,
    teacher: Tensor,
    kernel: Kernel = "polynomial",
    degree: int = 2,
    offset: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Squared maximum mean discrepancy of the channels of two stages, maps or tokens (Huang and Wang 2017).

    A channel is its map at unit length; there may be more of them on one side, and the larger map is average-pooled. Kernels: ``linear`` x.y;
    ``polynomial`` (x.y + offset) ** degree; ``gaussian``, with the mean squared distance of student and teacher channels as squared width.
    With ``reduction="none"`` one value a sample. Raises ValueError where only one position is left, at which all channels are alike.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, KERNELS)}")
    student, teacher = as_map(student), as_map(teacher)
    grid = smaller_grid(student, teacher, "neuron selectivity transfer")
    mine, theirs = (
        F.normalize(resize(to_float32(stage), grid).flatten(2), dim=2)
        for stage in (student, teacher)
    )
    width = (
        _squared_distances(mine.detach(), theirs).mean((1, 2), keepdim=True).clamp_min(NARROWEST)
        if kernel == "gaussian"
        else 1.0
    )

    def similarity(first: Tensor, second: Tensor) -> Tensor:
        if kernel == "gaussian":
            values = (-_squared_distances(first, second) / (2 * width)).exp()
        else:
            values = first @ second.mT
            values = (
                (values + offset if offset else values) ** degree
                if kernel == "polynomial"
                else values
            )
        return sample_mean(values)

    return apply_reduction(
        similarity(theirs, theirs) + similarity(mine, mine) - 2 * similarity(mine, theirs),
        reduction,
    )


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    lengths = first.square().sum(2)[:, :, None] + second.square().sum(2)[:, None]
    return (lengths - 2 * first @ second.mT).clamp_min(0)


class NST(FeatureObjective):
    """The student's channels, as patterns over the positions, distributed as the teacher's; summed over the pairs, no parameters.

    ``kernel``: of the discrepancy; polynomial is the squared product.
    """

    card = Card(
        "Like what you like: knowledge distill via neuron selectivity transfer",
        "https://arxiv.org/abs/1707.01219",
        "arXiv",
        2017,
        source="features",
        deviations="lambda / 2 is the recipe's weight; the larger map is average-pooled where the paper interpolates; the squared width of the "
        "gaussian kernel is a constant of each sample for the gradient",
        equation=r"\sum_l \left[ \frac{1}{C_t^2} \sum_{i,i'} k(\hat f^t_i, \hat f^t_{i'}) + \frac{1}{C_s^2} \sum_{j,j'} k(\hat f^s_j, \hat "
        r"f^s_{j'}) - \frac{2}{C_t C_s} \sum_{i,j} k(\hat f^t_i, \hat f^s_j) \right], \quad k(x, y) = (x^\top y)^2, \; \hat f_i = "
        r"\frac{f_i}{\lVert f_i \rVert_2}",
        use="Channels of either side as a set without an order: any widths, no parameters, no regressor that could take the loss on itself. With "
        "kernel: linear it compares the mean patterns, much as attention_transfer does; by default also how positions go together.",
        pitfalls="The weight in RepDistiller and mdistiller is 50 for the default kernel. It costs three matrices of products of all channels a "
        "pair, much where stages are wide. Scale is not taught, as channels are of unit length.",
    )

    def __init__(self, kernel: Kernel = "polynomial", pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.kernel = kernel

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        height, width = smaller_grid(
            as_map(student), as_map(teacher), "neuron selectivity transfer"
        )
        return nn.Identity(), f"channels on {height}x{width}"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return nst_loss(student, teacher, self.kernel, reduction="none")
