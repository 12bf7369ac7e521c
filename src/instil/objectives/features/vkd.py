"""VkD: the student's features, through a projection that keeps angles, near the teacher's normalised ones."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from instil.core import Batch, Card, Outputs, closest, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, patch_tokens, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective

Normalize = Literal["layer", "batch"]
SMALLEST_DEVIATION = 1e-12


def vkd_loss(
    student: Tensor, teacher: Tensor, normalize: Normalize = "layer", reduction: str = "mean"
) -> Tensor:
    """Smooth L1 difference of projected features (N, ..., D) from the teacher's normalised ones, mean over the elements (Miles et al. 2024).

    ``normalize="layer"``: each of the teacher's vectors over its channels. ``batch``: both sides' channels over all vectors of the batch, which
    couples them. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "vkd_loss")
    if normalize == "layer":
        teacher = F.layer_norm(teacher, teacher.shape[-1:])
    elif normalize == "batch":
        student, teacher = _standardized(student), _standardized(teacher)
    else:
        raise ValueError(
            f"normalize: no norm '{normalize}'; {closest(normalize, ('layer', 'batch'))}"
        )
    return apply_reduction(
        sample_mean(F.smooth_l1_loss(student, teacher, reduction="none")), reduction
    )


def _standardized(features: Tensor) -> Tensor:
    rows = features.flatten(0, -2)
    centred = rows - rows.mean(0)
    variance = centred.square().sum(0) / max(1, len(rows) - 1)
    return (centred * variance.clamp_min(SMALLEST_DEVIATION).rsqrt()).view_as(features)


class OrthogonalProjection(nn.Module):
    """From the student's width to the teacher's by a matrix that stays orthogonal while it learns."""

    def __init__(self, source: int, target: int):
        super().__init__()
        self.projector = orthogonal(nn.Linear(source, target, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projector(match_dtype(self, to_float32(features)))
        return projected


class VkD(FeatureObjective):
    """The deepest stage's patches, averaged and projected orthogonally, near the teacher's averaged stage after a layer norm.

    ``normalize``: layer normalises each of the teacher's vectors over its channels, batch both sides' channels over the batch, which couples the
    samples (the authors' detection form).
    ``pool``: the mean over the patches is compared; else patch by patch (the detection form).
    """

    card = Card(
        "VkD: improving knowledge distillation using orthogonal projections",
        "https://arxiv.org/abs/2403.06213",
        "CVPR",
        2024,
        source="features",
        zero_at_match=False,
        deviations="normalize: 'layer' is the code's for classification, 'batch' that for detection; the paper speaks of standardization; "
        "the orthogonal matrix is torch's parametrization, as in the code, where the paper has a matrix exponential",
        equation=r"\frac{1}{D} \sum_d \mathrm{smooth}_{L1}\left( P \bar f^s - \mathrm{LN}(\bar f^t) \right)_d, \quad P^\top P = I",
        use="Transformers, also from convolutional teachers: a projection that only turns cannot do the student's work for it. It costs one "
        "matrix, kept orthogonal.",
        pitfalls="A wider student loses directions in the projection; a narrower one fills only part of the teacher's space, and the loss then has "
        "a floor. The layer norm takes away how strong a sample's features are. The orthogonal matrix is made anew in each step, which takes time "
        "at large widths.",
    )
    deepest = True

    def __init__(self, normalize: Normalize = "layer", pool: bool = True, pairs: Pairs = "auto"):
        super().__init__(pairs)
        if normalize not in ("layer", "batch"):
            raise ValueError(
                f"normalize: no norm '{normalize}'; {closest(normalize, ('layer', 'batch'))}"
            )
        self.normalize, self.pool = normalize, pool

    @property
    def couples(self) -> bool:
        return self.normalize == "batch"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = OrthogonalProjection(as_map(student).shape[1], as_map(teacher).shape[1])
        return made.to(student.device, to_float32(student).dtype), "projected orthogonally"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        teacher = as_map(teacher)
        mine, theirs = (
            patch_tokens(resize(to_float32(as_map(student)), (teacher.shape[2], teacher.shape[3]))),
            patch_tokens(teacher),
        )
        if self.pool:
            mine, theirs = patch_tokens(student).mean(1), theirs.mean(1)
        return vkd_loss(connection(mine), theirs, self.normalize, "none")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values = super().forward(student, teacher, batch)
        return values.mean() if self.couples else values
