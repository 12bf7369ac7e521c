"""Knowledge review: deeper student stages, fused into shallower ones, learn from the teacher's shallower stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, describe_pair, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS
from instil.objectives.bases.normed_objective import NormedObjective

LEVELS = (4, 2, 1)


def hcl_loss(
    student: Tensor, teacher: Tensor, levels: tuple[int, ...] = LEVELS, reduction: str = "mean"
) -> Tensor:
    """Hierarchical context loss of two maps of one shape (N, C, H, W) (Chen et al. 2021).

    Squared differences of the maps and of their averages on square grids, each grid (of those in ``levels`` smaller than H) counting half of
    the one before; weighted mean over the grids, mean over the elements. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "hcl_loss")
    difference = student - teacher
    values, weight, total = sample_mean(difference.square()), 1.0, 1.0
    for level in levels:
        if level < student.shape[2]:
            weight /= 2
            total += weight
            pooled = F.adaptive_avg_pool2d(difference, level)
            values = values + weight * sample_mean(pooled.square())
    return apply_reduction(values / total, reduction)


class Fusion(nn.Module):
    """Attention-based fusion: a stage and the residual of the deeper ones, mixed position by position, in the teacher's channels."""

    def __init__(
        self, source: int, middle: int, target: int, fuses: bool, norm: Callable[[int], nn.Module]
    ):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(source, middle, 1, bias=False), norm(middle))
        self.expand = nn.Sequential(
            nn.Conv2d(middle, target, 3, padding=1, bias=False), norm(target)
        )
        self.attend = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuses else None
        for convolution in (self.reduce[0], self.expand[0]):
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(
        self, student: Tensor, residual: Tensor | None, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The stage for the loss (N, C_t, *grid) and the residual for the next shallower stage."""
        fused: Tensor = self.reduce(match_dtype(self, to_float32(student)))
        if self.attend is not None and residual is not None:
            residual = F.interpolate(residual, fused.shape[-2:], mode="nearest")
            mix = self.attend(torch.cat([fused, residual], 1))
            fused = fused * mix[:, :1] + residual * mix[:, 1:]
        if fused.shape[-2:] != grid:
            fused = F.interpolate(fused, grid, mode="nearest")
        return self.expand(fused), fused


class ReviewKD(NormedObjective):
    """Each teacher stage reviewed by a fusion of the student's stage and all deeper ones, under ``hcl_loss``; summed over the pairs.

    To have the authors' pooled stage, tap the pooled embedding as the last of ``features``: (N, D) is a map of one position.

    ``norm``: in the fusions; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    """

    card = Card(
        "Distilling knowledge via knowledge review",
        "https://arxiv.org/abs/2104.09044",
        "CVPR",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        deviations="the fusions normalise each sample (one group) so that a loss depends neither on the rest of the batch nor on how it was "
        "cut; norm: 'batch' is the code's. Weights of hcl_loss as in the code, the paper gives none; the warm-up is the recipe's weight",
        equation=r"\sum_l \frac{\sum_k 2^{-k}\, \mathrm{mse}\left( \mathrm{pool}_{h_k}(g_l),\, \mathrm{pool}_{h_k}(f^t_l) \right)}{\sum_k 2^{-k}}, "
        r"\quad h_k \in \{H, 4, 2, 1\}, \; (g_l, u_l) = \mathrm{ABF}(f^s_l, u_{l+1})",
        use="Convolutional pairs with stages of falling resolution, for classification and detection. It costs a 1x1 and a 3x3 convolution a stage "
        "with up to 512 channels between, which can be more parameters than a small student has.",
        pitfalls="Weights in mdistiller are 5 on CIFAR-100, and on ImageNet 1 for ResNet18 <- ResNet34 and 8 for MobileNet <- ResNet50, rising "
        "linearly over the first 20 epochs. It was published beside the label's loss, without kd. Grids of levels are square, also on maps that "
        "are not.",
    )

    def __init__(self, norm: Literal["group", "batch"] = "group", pairs: Pairs = "auto"):
        super().__init__(norm, pairs)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the stages and make one fusion a pair, shallow to deep."""
        super().build(student, teacher)
        mine, theirs = feature_levels(student), feature_levels(teacher)
        self.matched.sort()
        deepest = mine[self.matched[-1][0]]
        middle, last = min(512, as_map(deepest).shape[1]), len(self.matched) - 1
        self.adapters, self.plan = nn.ModuleList(), []
        for place, (i, j) in enumerate(self.matched):
            source, target = as_map(mine[i]).shape[1], as_map(theirs[j]).shape[1]
            fusion = Fusion(source, middle, target, place < last, NORMS[self.norm])
            self.adapters.append(fusion.to(deepest.device, to_float32(deepest).dtype))
            self.plan.append(
                describe_pair(
                    (i, j),
                    mine[i],
                    theirs[j],
                    "fused with the deeper ones" if place < last else "the deepest",
                )
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        residual, terms = None, []
        for fusion, (i, j) in reversed(list(zip(self.adapters, self.matched, strict=True))):
            target = as_map(theirs[j])
            fused, residual = fusion(as_map(mine[i]), residual, (target.shape[2], target.shape[3]))
            terms.append(hcl_loss(fused, target, reduction="none"))
        return self.reduce_if_coupled(torch.stack(terms).sum(0))
