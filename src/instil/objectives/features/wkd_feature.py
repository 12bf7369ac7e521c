"""Wasserstein distance between Gaussians of the channels, fitted over the positions."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import as_map, require_same_items
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import checked_norm, connector_end, convolutions
from instil.objectives.bases.feature_objective import FeatureObjective

Covariance = Literal["diagonal", "full"]
COVARIANCES = ("diagonal", "full")

CovarianceKind = Annotated[
    Covariance,
    Doc("diagonal: compares standard deviations of the channels; full: whole covariance matrices"),
]
MeanWeight = Annotated[
    NonNegative,
    Doc(
        "weight of the means relative to the covariances (gamma); 4: ResNet8x4 <- "
        "ResNet32x4 on CIFAR-100"
    ),
]
Grid = Annotated[
    int,
    Ge(1),
    Doc(
        "number of cells per side, each with its own Gaussian; 4: ShuffleNetV1 <- "
        "WRN-40-2 on CIFAR-100"
    ),
]
Norm = Annotated[
    Literal["none", "batch"],
    Doc("layer after the convolution: none, or batch (the authors' BatchNorm, couples samples)"),
]


@check_bounds
def wkd_feature_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    covariance: Covariance = "diagonal",
    mean_weight: MeanWeight = 2.0,
    grid: Grid = 1,
    epsilon: Positive = 1e-5,
    reduction: str = "mean",
) -> Tensor:
    """Squared Wasserstein distance of the Gaussians of two maps (Lv et al. 2024, Eq. 8-10).

    Weighted squared distance of the means, plus that of the covariances. With diagonal covariances,
    the latter is the squared distance of the standard deviations, which are square roots of the
    unbiased variances plus ``epsilon``. With full covariances it is their Bures distance. The value
    is the mean over the cells of the grid.

    Args:
        student_features: map (N, C, *grid).
        teacher_features: map (N, C, *grid), of any size.
        covariance: ``"diagonal"`` or ``"full"``.
        mean_weight: weight of the squared distance of the means.
        grid: number of cells per side; each cell has its own Gaussian.
        epsilon: constant added to the variances of the diagonal.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples or channels differ, a cell holds only one position, or
            the covariance is unknown.

    Example:
        >>> import torch
        >>> student_features = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
        >>> wkd_feature_loss(student_features, torch.zeros(1, 1, 1, 2))
        tensor(9.9911)
    """
    require_same_items(student_features, teacher_features, "wkd_feature_loss")
    student_features = to_float32(student_features)
    teacher_features = to_float32(teacher_features)
    if student_features.shape[1] != teacher_features.shape[1]:
        raise ValueError(
            f"wkd_feature_loss: the channels differ. Expected {teacher_features.shape[1]} (the "
            f"teacher's), got {student_features.shape[1]}. Project the student's features."
        )
    require_choice("covariance", covariance, COVARIANCES)
    terms = []
    cells = zip(grid_cells(student_features, grid), grid_cells(teacher_features, grid), strict=True)
    for student_cell, teacher_cell in cells:
        mean_distance = (student_cell.mean(2) - teacher_cell.mean(2)).square().sum(1)
        if covariance == "diagonal":
            spread_distance = _deviation_distance(student_cell, teacher_cell, epsilon)
        else:
            spread_distance = _bures_distance(student_cell, teacher_cell)
        terms.append(mean_weight * mean_distance + spread_distance)
    return apply_reduction(torch.stack(terms).mean(0), reduction)


def grid_cells(level: Tensor, grid: int) -> list[Tensor]:
    """Split a map into a grid of cells.

    Neighbouring cells overlap where a side is not a multiple of ``grid``, as in adaptive pooling.

    Args:
        level: map (N, C, *grid).
        grid: number of cells per side.

    Returns:
        ``grid ** D`` tensors (N, C, positions) for a map of D dimensions, row by row.

    Raises:
        ValueError: if a cell has only one position.
    """
    edges = [_edges(size, grid) for size in level.shape[2:]]
    cells = []
    for ranges in itertools.product(*edges):
        cell = level
        for dim, (first, end) in enumerate(ranges, 2):
            cell = cell.narrow(dim, first, end - first)
        cells.append(cell.flatten(2))
    if any(cell.shape[2] < 2 for cell in cells):
        raise ValueError(
            "grid: a cell has one position and so no variance. Expected at least two positions per "
            f"cell, got {grid} cells per dimension on a level {tuple(level.shape)}. Use a smaller "
            "grid, or leave this level out of pairs."
        )
    return cells


def _edges(side: int, grid: int) -> list[tuple[int, int]]:
    """First and end position of each cell along one side."""
    return [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]


def _deviation_distance(student_cell: Tensor, teacher_cell: Tensor, epsilon: float) -> Tensor:
    """Squared distance (N,) of the standard deviations of the channels."""
    student_deviation = (student_cell.var(2) + epsilon).sqrt()
    teacher_deviation = (teacher_cell.var(2) + epsilon).sqrt()
    return (student_deviation - teacher_deviation).square().sum(1)


def _bures_distance(student_cell: Tensor, teacher_cell: Tensor) -> Tensor:
    """Bures distance (N,): tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2) of the covariances A, B."""
    x, y = _centred(student_cell), _centred(teacher_cell)
    # With A = XX' and B = YY' the last trace is the sum of the singular values of X'Y, a matrix of
    # the positions: no square root of a C x C matrix is needed.
    cross: Tensor = torch.linalg.svdvals(x.mT @ y).sum(1)
    return x.square().sum((1, 2)) + y.square().sum((1, 2)) - 2 * cross


def _centred(cell: Tensor) -> Tensor:
    """X (N, C, positions) with the covariance XX'."""
    return (cell - cell.mean(2, keepdim=True)) / math.sqrt(cell.shape[2] - 1)


class WKDFeature(FeatureObjective):
    """Wasserstein distance of the Gaussians of student and teacher levels; sum over the pairs.

    A 1x1 convolution maps the student's channels. Defaults are those for ResNet18 <- ResNet34 on
    ImageNet.
    """

    deepest = True
    card = Card(
        "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation",
        "https://arxiv.org/abs/2412.08139",
        "NeurIPS",
        2024,
        source="features",
        zero_at_match=False,
        published_weight=0.02,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34",
        deviations="The projector has a bias instead of BatchNorm; norm: 'batch' is that of the "
        "code. It has a ReLU only where the teacher's level has no negative value. The cosine "
        "decay of the weight is a schedule of the recipe.",
        equation=r"\sum_l \left[ \gamma \lVert \mu^s_l - \mu^t_l \rVert_2^2 + \lVert \sigma^s_l - "
        r"\sigma^t_l \rVert_2^2 \right], \quad \mu, \sigma \text{ of each channel over the "
        r"positions}",
        use="It transfers the distribution of the deepest level's features, not their positions, "
        "so that maps may differ in resolution. It costs a 1x1 convolution, and with full "
        "covariances a singular value decomposition per sample.",
        pitfalls="The loss sums over the channels, so that the weight depends on the networks: the "
        "authors use 0.005 for MobileNet <- ResNet50 on ImageNet, 0.08 and 0.3 on CIFAR-100. Maps "
        "with few positions give poor variances, and finer cells worse ones.",
    )

    def __init__(
        self,
        covariance: CovarianceKind = "diagonal",
        mean_weight: MeanWeight = 2.0,
        grid: Grid = 1,
        epsilon: Annotated[
            Positive, Doc("constant added to the variances of diagonal covariances")
        ] = 1e-5,
        norm: Norm = "none",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest levels")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        require_choice("covariance", covariance, COVARIANCES)
        self.covariance = covariance
        self.mean_weight = mean_weight
        self.grid = grid
        self.epsilon = epsilon

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        """Create the projector of one pair.

        Raises:
            ValueError: if a cell of the grid has only one position.
        """
        student_map, teacher_map = as_map(student_features), as_map(teacher_features)
        for level in (student_map, teacher_map):
            grid_cells(level, self.grid)
        widths = (student_map.shape[1], teacher_map.shape[1])
        projector = convolutions(widths, (1,), self.norm, connector_end(teacher_map))
        projector.to(student_map.device, to_float32(student_map).dtype)
        return projector, f"conv 1x1, Gaussians of {self.grid}x{self.grid} cells"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        student_map = match_dtype(connection, to_float32(as_map(student_features)))
        return wkd_feature_loss(
            connection(student_map),
            as_map(teacher_features),
            self.covariance,
            self.mean_weight,
            self.grid,
            self.epsilon,
            "none",
        )
