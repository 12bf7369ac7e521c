"""Attention-based feature distillation: learned attention pairs teacher and student levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.attention_maps import FAINTEST, attention_map
from instil.functional.errors import squared_error
from instil.functional.feature_maps import POOLS, as_map, grid_of, match_dimensions
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.functional.pooling import mean_positions
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, NormedLinear, checked_norm
from instil.objectives.bases.feature_objective import FeatureObjective


def afd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    attention: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Attention-based feature distillation loss (Ji et al. 2021).

    Squared differences of the attention maps of all pairs of levels, weighted by ``attention``.
    The student maps are pooled to the teacher's grid. The value is the mean over the positions and
    the sum over the pairs.

    Args:
        student_features: S feature maps (N, C, *grid) of any channels and sizes.
        teacher_features: T feature maps (N, C, *grid) of any channels and sizes.
        attention: weights (N, T, S) of the pairs.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if no teacher level has more than one position.

    Example:
        >>> import torch
        >>> student, teacher = torch.eye(2)[None, None], torch.ones(1, 1, 2, 2)
        >>> afd_loss([student], [teacher], torch.ones(1, 1, 1))
        tensor(0.1464)
    """
    if all(level.shape[2:].numel() == 1 for level in teacher_features):
        raise ValueError(
            "teacher_features: every level has one position. Expected a teacher level with more "
            "than one position. Tap an earlier layer."
        )
    strengths = [_relative_strength(to_float32(level)) for level in student_features]
    terms = []
    for index, level in enumerate(teacher_features):
        grid = grid_of(level)
        teacher_map = attention_map(level)
        errors = [squared_error(_pooled_map(each, grid), teacher_map) for each in strengths]
        terms.append((attention[:, index] * torch.stack(errors, 1)).sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


def _relative_strength(feature_map: Tensor) -> Tensor:
    """Sum of squares over the channels, divided by its maximum: (N, 1, *grid)."""
    strength = feature_map.square().sum(1, keepdim=True)
    return strength / strength.detach().amax(
        tuple(range(2, feature_map.ndim)), keepdim=True
    ).clamp_min(FAINTEST)


def _pooled_map(strength: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Average-pool a strength (N, 1, *grid) to a grid and scale it to unit length: (N, P)."""
    pooled = POOLS[len(grid)](match_dimensions(strength, len(grid)), grid)
    return F.normalize(pooled.flatten(1), dim=1)


def _embed_channel_means(layers: nn.ModuleList, levels: Sequence[Tensor]) -> Tensor:
    """Apply one layer to the channel means of each level: (N, levels, D)."""
    means = [layer(mean_positions(level)) for layer, level in zip(layers, levels, strict=True)]
    return torch.stack(means, 1)


class LevelAttention(nn.Module):
    """Attention of teacher levels over student levels, computed from their channel means.

    Args:
        student: channels of each student level.
        teacher: channels of each teacher level.
        width: width of queries and keys.
        norm: normalisation of the linear layers.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], width: int, norm: Norm):
        super().__init__()
        self.keys = nn.ModuleList(NormedLinear(channels, width, norm) for channels in student)
        self.queries = nn.ModuleList(NormedLinear(channels, width, norm) for channels in teacher)
        self.bilinear = NormedLinear(width, width * len(teacher), norm)
        self.student_place = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(student), width)))
        self.teacher_place = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(teacher), width)))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the attention (N, T, S), a distribution over the student levels."""
        keys = _embed_channel_means(self.keys, student).relu()
        queries = _embed_channel_means(self.queries, teacher)
        weighted_keys = self.bilinear(keys).unflatten(2, (len(self.queries), -1))
        content = torch.einsum("nstd,ntd->nts", weighted_keys, queries)
        energy = content + self.teacher_place @ self.student_place.T
        return (energy / math.sqrt(self.student_place.shape[1])).softmax(2)


class AFD(FeatureObjective):
    """Attention maps of all pairs of levels, weighted by a learned attention per sample."""

    card = Card(
        "Show, attend and distill: knowledge distillation via attention-based feature matching",
        "https://arxiv.org/abs/2102.02973",
        "AAAI",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        published_weight=200.0,
        weight_setting="the authors' code, CIFAR-100, WRN-16-2 <- WRN-40-2, batches of 64, with kd "
        "of weight 0.9",
        deviations="Queries and keys are normalised per sample; norm: 'batch' is that of the code.",
        equation=r"\sum_t \sum_s \alpha_{ts} \frac{1}{P_t} \lVert \phi(f^s_s) - \phi(f^t_t) "
        r"\rVert_2^2, \quad \alpha_{t\cdot} = \mathrm{softmax}_s \frac{q_t^\top W_t k_s + "
        r"p_t^\top p_s}{\sqrt{d}}, \quad \phi(f) = \frac{a}{\lVert a \rVert_2}, \; a = "
        r"\frac{1}{C} \sum_c f_c^2",
        use="For networks of different depth, if the best pairs of levels are unknown. The pairing "
        "is learned for each sample. Only positions are compared, so the channels may differ. It "
        "costs a few linear layers, and every student level is pooled to every teacher level.",
        pitfalls="Maps of unit length differ little, so that the weight must be large. The loss "
        "does not transfer which channels are strong. The attention can lower the loss by "
        "selecting student levels that are already similar.",
    )

    def __init__(
        self,
        width: Annotated[int, Ge(1), Doc("width of queries and keys")] = 128,
        norm: Annotated[
            Literal["group", "batch"],
            Doc("normalisation of queries and keys: group (per sample) or batch (BatchNorm)"),
        ] = "group",
    ):
        super().__init__()
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.width = width

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Pair every student level with every teacher level."""
        indices = itertools.product(range(len(teacher)), range(len(student)))
        return [(i, j) for j, i in indices]

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "by attention"

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the attention over all levels of both sides."""
        super().build(student_outputs, teacher_outputs)
        student_maps = [as_map(level) for level in feature_levels(student_outputs)]
        teacher_maps = [as_map(level) for level in feature_levels(teacher_outputs)]
        student_channels = [level.shape[1] for level in student_maps]
        teacher_channels = [level.shape[1] for level in teacher_maps]
        attention = LevelAttention(student_channels, teacher_channels, self.width, self.norm)
        first = student_maps[0]
        self.adapters = nn.ModuleList([attention.to(first.device, to_float32(first).dtype)])

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_maps = self._levels(student_outputs)
        teacher_maps = self._levels(teacher_outputs)
        attention = self.adapters[0](student_maps, teacher_maps)
        return self.reduce_if_coupled(afd_loss(student_maps, teacher_maps, attention, "none"))

    def _levels(self, outputs: Outputs) -> list[Tensor]:
        """Feature maps of one side in the precision of the attention."""
        levels = feature_levels(outputs)
        return [match_dtype(self.adapters[0], to_float32(as_map(level))) for level in levels]
