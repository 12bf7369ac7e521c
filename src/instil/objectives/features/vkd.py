"""VkD: student features match normalized teacher features after a projection that keeps angles."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, grid_of, patch_tokens, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective

Normalize = Literal["layer", "batch"]
MIN_VARIANCE = 1e-12


def vkd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    normalize: Normalize = "layer",
    reduction: str = "mean",
) -> Tensor:
    """VkD loss: smooth L1 difference to normalized teacher features (Miles et al. 2024).

    The value is the mean over the elements.

    Args:
        student_features: projected features (N, ..., D).
        teacher_features: features (N, ..., D).
        normalize: ``"layer"`` normalizes each teacher vector over its channels. ``"batch"``
            standardizes the channels of both sides over all vectors of the batch, and couples the
            samples.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or ``normalize`` is unknown.

    Example:
        >>> import torch
        >>> vkd_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
        tensor(0.5000)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "vkd_loss"
    )
    require_choice("normalize", normalize, ("layer", "batch"))
    if normalize == "layer":
        teacher_features = F.layer_norm(teacher_features, teacher_features.shape[-1:])
    else:
        student_features = _standardize(student_features)
        teacher_features = _standardize(teacher_features)
    values = F.smooth_l1_loss(student_features, teacher_features, reduction="none")
    return apply_reduction(sample_mean(values), reduction)


def _standardize(features: Tensor) -> Tensor:
    """Channels with mean 0 and standard deviation 1 over all vectors of the batch."""
    rows = features.flatten(0, -2)
    centred = rows - rows.mean(0)
    variance = centred.square().sum(0) / max(1, len(rows) - 1)
    return (centred * variance.clamp_min(MIN_VARIANCE).rsqrt()).view_as(features)


class OrthogonalProjection(nn.Module):
    """Linear map to the teacher's width whose matrix stays orthogonal during training.

    Args:
        source: width of the student.
        target: width of the teacher.
    """

    def __init__(self, source: int, target: int):
        super().__init__()
        self.projector = orthogonal(nn.Linear(source, target, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projector(match_dtype(self, to_float32(features)))
        return projected


class VkD(FeatureObjective):
    """Match of the deepest level, projected orthogonally, with the teacher's normalized level.

    By default the means over the patches are compared.
    """

    card = Card(
        "VkD: improving knowledge distillation using orthogonal projections",
        "https://arxiv.org/abs/2403.06213",
        "CVPR",
        2024,
        source="features",
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="default of the authors' code for ImageNet, with kd of weight 1",
        deviations="normalize: 'layer' is that of the code for classification, 'batch' that for "
        "detection; the paper describes a standardization. The orthogonal matrix is torch's "
        "parametrization, as in the code; the paper uses a matrix exponential.",
        equation=r"\frac{1}{D} \sum_d \mathrm{smooth}_{L1}\left( P \bar f^s - \mathrm{LN}(\bar "
        r"f^t) \right)_d, \quad P^\top P = I",
        use="For transformers, also with convolutional teachers. A projection that only rotates "
        "cannot do the student's work. It costs one matrix, kept orthogonal.",
        pitfalls="A wider student loses directions in the projection. A narrower one fills only "
        "part of the teacher's space, and the loss then has a lower bound above 0. The layer norm "
        "removes the strength of a sample's features. The orthogonal matrix is computed in every "
        "step, which takes time at large widths.",
    )
    deepest = True

    def __init__(
        self,
        normalize: Annotated[
            Normalize,
            Doc(
                "layer: each teacher vector over its channels; batch: the channels of both sides "
                "over the batch (the authors' detection form, couples the samples)"
            ),
        ] = "layer",
        pool: Annotated[
            bool,
            Doc(
                "whether the means over the patches are compared; false: each patch (the "
                "detection form)"
            ),
        ] = True,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest levels")
        ] = "auto",
    ):
        super().__init__(pairs)
        require_choice("normalize", normalize, ("layer", "batch"))
        self.normalize = normalize
        self.pool = pool

    @property
    def couples(self) -> bool:
        """Whether the batch statistics make the loss of a sample depend on the others."""
        return self.normalize == "batch"

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student_features).shape[1], as_map(teacher_features).shape[1]
        projection = OrthogonalProjection(source, target)
        projection.to(student_features.device, to_float32(student_features).dtype)
        return projection, "projected orthogonally"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        teacher_map = as_map(teacher_features)
        teacher_vectors = patch_tokens(teacher_map)
        if self.pool:
            # Means need no common grid, so the student's map is not resized.
            student_vectors = patch_tokens(student_features).mean(1)
            teacher_vectors = teacher_vectors.mean(1)
        else:
            student_map = resize(to_float32(as_map(student_features)), grid_of(teacher_map))
            student_vectors = patch_tokens(student_map)
        return vkd_loss(connection(student_vectors), teacher_vectors, self.normalize, "none")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values = super().forward(student, teacher, batch)
        return values.mean() if self.couples else values
