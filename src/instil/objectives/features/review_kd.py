"""Knowledge review: deeper student levels help the shallower ones to match the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import (
    POOLS,
    as_map,
    grid_of,
    match_dimensions,
    require_same_shape,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, describe_pair, feature_levels
from instil.modules.adapters import PointwiseConv, match_dtype
from instil.modules.connectors import NORMS, checked_norm, convolution
from instil.objectives.bases.feature_objective import FeatureObjective

LEVELS = (4, 2, 1)
"""Sides of the grids of the hierarchical context loss."""


def hcl_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    levels: tuple[int, ...] = LEVELS,
    reduction: str = "mean",
) -> Tensor:
    """Hierarchical context loss (Chen et al. 2021).

    Weighted mean of the mean squared differences of the maps and of their averages on square
    (or cubic) grids.
    The weight of the maps is 1, and each grid has half the weight of the one before.

    Args:
        student_features: map (N, C, *grid).
        teacher_features: map (N, C, *grid).
        levels: sides of the grids; only those smaller than the height are used.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> hcl_loss(torch.zeros(1, 1, 2, 2), torch.eye(2).view(1, 1, 2, 2))
        tensor(0.4167)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "hcl_loss"
    )
    difference = student_features - teacher_features
    values = sample_mean(difference.square())
    weight = 1.0
    total = 1.0
    for level in levels:
        if level < student_features.shape[-2]:
            weight /= 2
            total += weight
            pooled = POOLS[difference.ndim - 2](difference, level)
            values = values + weight * sample_mean(pooled.square())
    return apply_reduction(values / total, reduction)


class AttentionFusion(nn.Module):
    """Attention-based fusion of a student level with the residual of the deeper ones.

    A learned attention mixes both at each position; a convolution maps the result to the teacher's
    channels.

    Args:
        source: channels of the student level.
        middle: channels of the fused features.
        target: channels of the teacher level.
        fuses: whether there is a residual; False for the deepest level.
        norm: factory of a normalization layer from its number of channels.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(
        self,
        source: int,
        middle: int,
        target: int,
        fuses: bool,
        norm: Callable[[int], nn.Module],
        dims: int = 2,
    ):
        super().__init__()
        self.reduce = nn.Sequential(PointwiseConv(source, middle, bias=False), norm(middle))
        wide = convolution(dims, middle, target, 3, bias=False)
        self.expand = nn.Sequential(wide, norm(target))
        self.attend = nn.Sequential(PointwiseConv(2 * middle, 2), nn.Sigmoid()) if fuses else None
        for layer in (self.reduce[0], self.expand[0]):
            assert isinstance(layer, (nn.Conv2d, nn.Conv3d))
            nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(
        self, student_features: Tensor, residual: Tensor | None, grid: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Fuse a student level with the residual of the next deeper level.

        Args:
            student_features: map (N, source, *grid).
            residual: map (N, middle, *grid) of the next deeper level; None for the deepest level.
            grid: grid of the teacher level.

        Returns:
            Features (N, target, *grid) for the loss, and the residual (N, middle, *grid) for the
            next shallower level.
        """
        features = match_dimensions(to_float32(student_features), len(grid))
        fused: Tensor = self.reduce(match_dtype(self, features))
        if self.attend is not None and residual is not None:
            residual = F.interpolate(residual, fused.shape[2:], mode="nearest")
            mix = self.attend(torch.cat([fused, residual], 1))
            fused = fused * mix[:, :1] + residual * mix[:, 1:]
        if grid_of(fused) != grid:
            fused = F.interpolate(fused, grid, mode="nearest")
        return self.expand(fused), fused


class ReviewKD(FeatureObjective):
    """Hierarchical context loss of student levels fused with all deeper ones; sum over the pairs.

    For the authors' pooled level, tap the pooled embedding as the last of ``features``: (N, D) is a
    map of one position.
    """

    card = Card(
        "Distilling knowledge via knowledge review",
        "https://arxiv.org/abs/2104.09044",
        "CVPR",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        published_weight=5.0,
        weight_setting="mdistiller, CIFAR-100, batches of 64, raised over 20 epochs",
        deviations="The fusions normalize each sample (one group). The loss of a sample then "
        "depends neither on the rest of the batch nor on its split. norm: 'batch' is that of the "
        "code. The weights of hcl_loss are those of the code, the paper gives none. The "
        "warm-up is a schedule of the weight.",
        equation=r"\sum_l \frac{\sum_k 2^{-k}\, \mathrm{mse}\left( \mathrm{pool}_{h_k}(g_l),\, "
        r"\mathrm{pool}_{h_k}(f^t_l) \right)}{\sum_k 2^{-k}}, \quad h_k \in \{H, 4, 2, 1\}, \; "
        r"(g_l, u_l) = \mathrm{ABF}(f^s_l, u_{l+1})",
        use="For convolutional pairs with levels of falling resolution, in classification and "
        "detection. It costs a 1x1 and a 3x3 convolution per level with up to 512 channels in "
        "between. These can have more parameters than a small student.",
        pitfalls="The weight depends on the networks: on ImageNet mdistiller has 1 for ResNet18 <- "
        "ResNet34 and 8 for MobileNet <- ResNet50. Raise it over the first epochs. It was "
        "published with the label loss and without kd. Grids are square, also on maps that are "
        "not.",
    )

    def __init__(
        self,
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalization of the fusions: group (per sample) or batch (the authors' "
                "BatchNorm, couples the samples)"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels and create one fusion per pair, shallow to deep."""
        # The adapters of the base class are replaced; creating them advances the random state.
        super().build(student, teacher)
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        self.matched.sort()
        deepest = student_levels[self.matched[-1][0]]
        middle = min(512, as_map(deepest).shape[1])
        device, dtype = deepest.device, to_float32(deepest).dtype
        self.adapters = nn.ModuleList()
        self.plan = []
        for i, j in self.matched:
            fuses = len(self.adapters) < len(self.matched) - 1
            source = as_map(student_levels[i]).shape[1]
            teacher_map = as_map(teacher_levels[j])
            target, dims = teacher_map.shape[1], teacher_map.ndim - 2
            fusion = AttentionFusion(source, middle, target, fuses, NORMS[self.norm], dims)
            description = "fused with the deeper levels" if fuses else "deepest level"
            self.adapters.append(fusion.to(device, dtype))
            self.plan.append(
                describe_pair((i, j), student_levels[i], teacher_levels[j], description)
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        residual = None
        terms = []
        # From deep to shallow: each fusion needs the residual of the next deeper level.
        for fusion, (i, j) in reversed(list(zip(self.adapters, self.matched, strict=True))):
            target = as_map(teacher_levels[j])
            fused, residual = fusion(as_map(student_levels[i]), residual, grid_of(target))
            terms.append(hcl_loss(fused, target, reduction="none"))
        return self.reduce_if_coupled(torch.stack(terms).sum(0))
