"""Neuron selectivity transfer: channels are distributed over the positions like the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import (
    as_map,
    describe_grid,
    require_same_items,
    resize,
    smaller_grid,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Kernel = Literal["polynomial", "gaussian", "linear"]
KERNELS = ("polynomial", "gaussian", "linear")
MIN_SQUARED_WIDTH = 1e-6
"""Smallest squared width of the Gaussian kernel."""


def nst_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    kernel: Kernel = "polynomial",
    degree: int = 2,
    offset: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Neuron selectivity transfer loss (Huang and Wang 2017).

    Squared maximum mean discrepancy between the channels of two levels. A channel is its map
    divided by its length. The larger map is average-pooled to the size of the smaller one.

    Args:
        student_features: map (N, C_s, *grid) or tokens (N, L, C_s).
        teacher_features: map (N, C_t, *grid) or tokens (N, L, C_t).
        kernel: ``"linear"`` is ``x.y``; ``"polynomial"`` is ``(x.y + offset) ** degree``;
            ``"gaussian"`` has the mean squared distance between student and teacher channels as
            squared width.
        degree: exponent of the polynomial kernel.
        offset: constant of the polynomial kernel.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, the kernel is unknown, or only one position is
            left, where all channels are equal.

    Example:
        >>> import torch
        >>> teacher_features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
        >>> nst_loss(torch.ones(1, 1, 2, 2), teacher_features)
        tensor(0.3333)
    """
    require_same_items(student_features, teacher_features, "nst_loss")
    require_choice("kernel", kernel, KERNELS)
    student_map, teacher_map = as_map(student_features), as_map(teacher_features)
    grid = smaller_grid(student_map, teacher_map, "neuron selectivity transfer")
    student_channels = _unit_channels(student_map, grid)
    teacher_channels = _unit_channels(teacher_map, grid)
    squared_width: Tensor | float = 1.0
    if kernel == "gaussian":
        distances = _squared_distances(student_channels.detach(), teacher_channels)
        squared_width = distances.mean((1, 2), keepdim=True).clamp_min(MIN_SQUARED_WIDTH)

    def similarity(first: Tensor, second: Tensor) -> Tensor:
        if kernel == "gaussian":
            return sample_mean((-_squared_distances(first, second) / (2 * squared_width)).exp())
        values = first @ second.mT
        if kernel == "polynomial":
            values = (values + offset if offset else values) ** degree
        return sample_mean(values)

    within = similarity(teacher_channels, teacher_channels) + similarity(
        student_channels, student_channels
    )
    return apply_reduction(within - 2 * similarity(student_channels, teacher_channels), reduction)


def _unit_channels(level: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Channels of a map on a grid as unit vectors: (N, C, P)."""
    return F.normalize(resize(to_float32(level), grid).flatten(2), dim=2)


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (N, A, B) between the rows (N, A, L) and (N, B, L)."""
    lengths = first.square().sum(2)[:, :, None] + second.square().sum(2)[:, None]
    # Rounding may make the difference of nearly equal numbers negative.
    return (lengths - 2 * first @ second.mT).clamp_min(0)


class NST(FeatureObjective):
    """Discrepancy between the student's and the teacher's channels; sum over the pairs.

    It has no parameters.
    """

    card = Card(
        "Like what you like: knowledge distill via neuron selectivity transfer",
        "https://arxiv.org/abs/1707.01219",
        "arXiv",
        2017,
        source="features",
        published_weight=50.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64",
        deviations="The factor lambda / 2 is the weight of the recipe. The larger map is "
        "average-pooled, the paper interpolates. The squared width of the gaussian kernel is a "
        "constant of each sample for the gradient.",
        equation=r"\sum_l \left[ \frac{1}{C_t^2} \sum_{i,i'} k(\hat f^t_i, \hat f^t_{i'}) + "
        r"\frac{1}{C_s^2} \sum_{j,j'} k(\hat f^s_j, \hat f^s_{j'}) - \frac{2}{C_t C_s} \sum_{i,j} "
        r"k(\hat f^t_i, \hat f^s_j) \right], \quad k(x, y) = (x^\top y)^2, \; \hat f_i = "
        r"\frac{f_i}{\lVert f_i \rVert_2}",
        use="It compares the channels of both sides as sets without an order: any widths, no "
        "parameters, and no regressor that could absorb the loss. kernel: linear compares the mean "
        "patterns, much like attention_transfer. The default also compares which positions are "
        "active together.",
        pitfalls="The loss costs three matrices of products of all channels per pair, which is "
        "expensive for wide levels. Channels have unit length, so their scale is not transferred.",
    )

    def __init__(
        self,
        kernel: Annotated[
            Kernel,
            Doc("kernel of the discrepancy: polynomial (the squared product), gaussian or linear"),
        ] = "polynomial",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.kernel = kernel

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        student_map, teacher_map = as_map(student_features), as_map(teacher_features)
        grid = smaller_grid(student_map, teacher_map, "neuron selectivity transfer")
        return nn.Identity(), f"channels on {describe_grid(grid)}"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return nst_loss(student_features, teacher_features, self.kernel, reduction="none")
