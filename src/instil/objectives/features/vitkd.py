"""ViTKD: the student mimics the teacher's shallow layers, and of its deep layer with tokens hidden the teacher's is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, keyed_uniform, to_float32
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, describe_pair, feature_levels
from instil.modules.adapters import Adapter, match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective


def vitkd_mimicking_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Sum of the squared differences of a sample's aligned shallow features (N, ...) (Yang et al. 2024). Raises ValueError where shapes differ."""
    student, teacher = require_same_shape(student, teacher, "vitkd_mimicking_loss")
    return apply_reduction(
        F.mse_loss(student, teacher, reduction="none").flatten(1).sum(1), reduction
    )


def vitkd_generation_loss(
    generated: Tensor, teacher: Tensor, hidden: Tensor, ratio: float = 0.5, reduction: str = "mean"
) -> Tensor:
    """Sum of the squared differences of maps (N, C, H, W) where ``hidden`` (N, H, W) is 1, over ``ratio`` (Yang et al. 2024).

    Raises ValueError where the shapes differ.
    """
    generated, teacher = require_same_shape(generated, teacher, "vitkd_generation_loss")
    squares = F.mse_loss(generated, teacher, reduction="none").sum(1)
    return apply_reduction((squares * hidden).flatten(1).sum(1) / ratio, reduction)


def hidden_tokens(noise: Tensor, ratio: float) -> Tensor:
    """(N, L): 1 for a sample's tokens of largest noise, but for the first int(L (1 - ratio)) in ascending order, which stay."""
    rank = noise.argsort(1).argsort(1)
    return (rank >= int(noise.shape[1] * (1 - ratio))).to(noise.dtype)


class Generation(nn.Module):
    """The aligned deep stage, with a learned token in the place of the hidden ones, through two convolutions: (N, C, H, W)."""

    def __init__(self, align: nn.Module, channels: int):
        super().__init__()
        self.align = align
        self.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.generation = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, student: Tensor, hidden: Tensor) -> Tensor:
        hidden = hidden[:, None]
        aligned = match_dtype(self, to_float32(self.align(student)))
        generated: Tensor = self.generation(aligned * (1 - hidden) + self.mask_token * hidden)
        return generated


class ViTKD(FeatureObjective):
    """The deepest pair of stages is generated from what is not hidden, all others are mimicked: tap the first two blocks and the last one.

    ``mimicking``: weight of the shallow stages' sums of squares.
    ``generation``: weight of the deepest stage's.
    ``ratio``: share of the deepest stage's tokens that is hidden, drawn by (seed, step, index).
    """

    card = Card(
        "ViTKD: feature-based knowledge distillation for vision transformers",
        "https://arxiv.org/abs/2209.02432",
        "CVPR Workshops",
        2024,
        source="features",
        zero_at_match=False,
        deviations="the class token takes no part; maps and other grids are resized to the teacher's, so that convolutional nets may take part",
        equation=r"\alpha \sum_{l\, \text{shallow}} \lVert r_l(f^s_l) - f^t_l \rVert_2^2 + \frac{\beta}{\lambda} \sum_{p \in \mathcal{M}} \lVert "
        r"G(\hat f^s)_p - f^t_p \rVert_2^2, \quad \hat f^s_p = \begin{cases} m & p \in \mathcal{M} \\ r(f^s)_p & \text{else} \end{cases}",
        use="Vision transformers from vision transformers of the same patch size: shallow layers are copied, the last one is generated. The "
        "authors have nkd beside it. It costs a 1x1 convolution a pair where widths differ, and two 3x3 convolutions of the teacher's width.",
        pitfalls="Sums over all elements: the weights are for DeiT's 196 tokens, and want to be larger where tokens or channels are fewer. With "
        "one pair nothing is mimicked. Which tokens are hidden needs an index.",
    )

    def __init__(
        self,
        mimicking: NonNegative = 3e-5,
        generation: NonNegative = 3e-6,
        ratio: Annotated[float, Gt(0), Le(1)] = 0.5,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        self.mimicking, self.generation, self.ratio = mimicking, generation, ratio

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        return sorted(super().choose(student, teacher))

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        i, j = self.matched[-1]
        mine, theirs = feature_levels(student)[i], feature_levels(teacher)[j]
        made = Generation(Adapter(mine, theirs), as_map(theirs).shape[1])
        self.adapters[-1] = made.to(mine.device, to_float32(mine).dtype)
        self.plan[-1] = describe_pair(
            (i, j), mine, theirs, f"{made.align}, generated from what is not hidden"
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        *shallow, (made, (i, j)) = zip(self.adapters, self.matched, strict=True)
        target = as_map(theirs[j])
        noise = keyed_uniform(batch, target.shape[2] * target.shape[3]).to(to_float32(target).dtype)
        hidden = hidden_tokens(noise, self.ratio).view(-1, *target.shape[2:])
        terms = [
            self.generation
            * vitkd_generation_loss(made(mine[i], hidden), target, hidden, self.ratio, "none")
        ]
        for connection, (low, teacher_low) in shallow:
            terms.append(
                self.mimicking
                * vitkd_mimicking_loss(connection(mine[low]), as_map(theirs[teacher_low]), "none")
            )
        return torch.stack(terms).sum(0)
