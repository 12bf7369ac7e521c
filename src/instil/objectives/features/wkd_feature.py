"""Wasserstein distance of features: each net's positions as a Gaussian of channels, and how far one must be moved to be the other."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, NonNegative, Positive, closest, to_float32
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import connector_end, convolutions
from instil.objectives.bases.normed_objective import NormedObjective

Covariance = Literal["diagonal", "full"]
COVARIANCES = ("diagonal", "full")


def wkd_feature_loss(
    student: Tensor,
    teacher: Tensor,
    covariance: Covariance = "diagonal",
    mean_weight: float = 2.0,
    grid: int = 1,
    epsilon: float = 1e-5,
    reduction: str = "mean",
) -> Tensor:
    """Squared Wasserstein distance of the Gaussians of two maps (N, C, H, W), mean over grid x grid cells (Lv et al. 2024, eq. 8-10).

    ``mean_weight`` times the squared distance of the means, and the squared distance of the standard deviations (square roots of the unbiased
    variances plus ``epsilon``), or with the ``"full"`` covariances their Bures distance. H and W may differ between the maps. Raises ValueError for
    other channels, and where a cell holds only one position.
    """
    student, teacher = to_float32(student), to_float32(teacher)
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"wkd_feature_loss: the student has {student.shape[1]} channels, the teacher {teacher.shape[1]}; they must be equal"
        )
    if covariance not in COVARIANCES:
        raise ValueError(
            f"covariance: no covariance '{covariance}'; {closest(covariance, COVARIANCES)}"
        )
    terms = []
    for mine, theirs in zip(cells(student, grid), cells(teacher, grid), strict=True):
        moved = (mine.mean(2) - theirs.mean(2)).square().sum(1)
        spread = (
            _diagonal(mine, theirs, epsilon) if covariance == "diagonal" else _bures(mine, theirs)
        )
        terms.append(mean_weight * moved + spread)
    return apply_reduction(torch.stack(terms).mean(0), reduction)


def cells(stage: Tensor, grid: int) -> list[Tensor]:
    """The grid x grid cells of a map (N, C, H, W), row by row, as (N, C, positions); neighbours overlap where the sides do not divide."""
    edges = [
        [(n * side // grid, -(-(n + 1) * side // grid)) for n in range(grid)]
        for side in stage.shape[2:]
    ]
    found = [
        stage[:, :, top:bottom, left:right].flatten(2)
        for top, bottom in edges[0]
        for left, right in edges[1]
    ]
    if any(cell.shape[2] < 2 for cell in found):
        raise ValueError(
            f"a variance needs two positions, and a cell of {grid}x{grid} in a stage {tuple(stage.shape)} has one; "
            "take a smaller grid, or leave that stage out of `pairs`"
        )
    return found


def _diagonal(student: Tensor, teacher: Tensor, epsilon: float) -> Tensor:
    deviations = [(cell.var(2) + epsilon).sqrt() for cell in (student, teacher)]
    return (deviations[0] - deviations[1]).square().sum(1)


def _bures(student: Tensor, teacher: Tensor) -> Tensor:
    """tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2) of the covariances A = XX', B = YY'; its last trace is the sum of the singular values of X'Y."""
    x, y = (
        (cell - cell.mean(2, keepdim=True)) / math.sqrt(cell.shape[2] - 1)
        for cell in (student, teacher)
    )
    shared: Tensor = torch.linalg.svdvals(x.mT @ y).sum(1)
    return x.square().sum((1, 2)) + y.square().sum((1, 2)) - 2 * shared


class WKDFeature(NormedObjective):
    """The Gaussian of the student's features, after a 1x1 convolution, near the teacher's. Defaults as for ResNet18 <- ResNet34 on ImageNet.

    ``covariance``: diagonal compares the channels' standard deviations, full whole covariances.
    ``mean_weight``: how much the means count beside the covariances (gamma; 4 for ResNet8x4 <- ResNet32x4 on CIFAR-100).
    ``grid``: so many cells a side have a Gaussian each (4 for ShuffleNetV1 <- WRN-40-2 on CIFAR-100).
    ``epsilon``: added to the variances of the diagonal.
    ``norm``: after the convolution; none leaves it as it is, batch is the authors' BatchNorm, which couples the samples.
    ``pairs``: auto is the deepest stages.
    """

    deepest = True
    card = Card(
        "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation",
        "https://arxiv.org/abs/2412.08139",
        "NeurIPS",
        2024,
        source="features",
        zero_at_match=False,
        deviations="the projector has a bias in place of BatchNorm (norm: 'batch' is the code's), and its ReLU only where the teacher's stage is "
        "nowhere negative; the cosine decay of the weight is the recipe's schedule",
        equation=r"\sum_l \left[ \gamma \lVert \mu^s_l - \mu^t_l \rVert_2^2 + \lVert \sigma^s_l - \sigma^t_l \rVert_2^2 \right], \quad \mu, \sigma "
        r"\text{ of each channel over the positions}",
        use="How the deepest stage's features are distributed is taught, not where they are, so that maps may differ in resolution. It costs a 1x1 "
        "convolution, and with full covariances a singular value decomposition a sample.",
        pitfalls="A sum over channels: the authors' weights are 0.02 for ResNet18 <- ResNet34 and 0.005 for MobileNet <- ResNet50 on ImageNet, "
        "0.08 and 0.3 on CIFAR-100. Maps of few positions have poor variances, and finer cells poorer ones.",
    )

    def __init__(
        self,
        covariance: Covariance = "diagonal",
        mean_weight: NonNegative = 2.0,
        grid: Annotated[int, Ge(1)] = 1,
        epsilon: Positive = 1e-5,
        norm: Literal["none", "batch"] = "none",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        if covariance not in COVARIANCES:
            raise ValueError(
                f"covariance: no covariance '{covariance}'; {closest(covariance, COVARIANCES)}"
            )
        self.covariance, self.mean_weight, self.grid, self.epsilon = (
            covariance,
            mean_weight,
            grid,
            epsilon,
        )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        student, teacher = as_map(student), as_map(teacher)
        for stage in (student, teacher):
            cells(stage, self.grid)
        made = convolutions(
            (student.shape[1], teacher.shape[1]), (1,), self.norm, connector_end(teacher)
        )
        return made.to(
            student.device, to_float32(student).dtype
        ), f"conv 1x1, Gaussians of {self.grid}x{self.grid} cells"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        adapted = connection(match_dtype(connection, to_float32(as_map(student))))
        return wkd_feature_loss(
            adapted,
            as_map(teacher),
            self.covariance,
            self.mean_weight,
            self.grid,
            self.epsilon,
            "none",
        )
