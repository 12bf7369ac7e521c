"""Temporal relation distillation: similarities between the frames of a video."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Card
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_items
from instil.functional.frames import frame_vectors, require_frames
from instil.functional.logits import apply_reduction
from instil.objectives.bases.feature_objective import FeatureObjective


def temporal_relation_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of the (T, T) cosine similarities of frames.

    Each frame is the mean of its features over the area. If the numbers of frames differ, those of
    the longer video are averaged to the shorter number.

    Args:
        student_features: (N, C, T, H, W).
        teacher_features: (N, C', T', H', W').
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> student = torch.eye(2).view(1, 2, 2, 1, 1)
        >>> temporal_relation_loss(student, torch.ones(1, 3, 2, 4, 4))
        tensor(0.5000)
    """
    require_same_items(student_features, teacher_features, "temporal_relation_loss")
    num_frames = min(student_features.shape[2], teacher_features.shape[2])
    student_relations, teacher_relations = (
        _similarities(features, num_frames) for features in (student_features, teacher_features)
    )
    return apply_reduction(squared_error(student_relations, teacher_relations), reduction)


def _similarities(features: Tensor, num_frames: int) -> Tensor:
    """Cosine similarities (N, T, T) of the frames."""
    vectors = F.normalize(frame_vectors(features, num_frames), dim=2)
    return vectors @ vectors.mT


class TemporalRelation(FeatureObjective):
    """Agreement of the similarities between frames, summed over the pairs of feature levels."""

    card = Card(
        "Relational knowledge distillation",
        "https://arxiv.org/abs/1904.05068",
        "CVPR",
        2019,
        source="relations",
        tasks=("video_classification",),
        grids=("3d",),
        deviations="The relations of the paper are those between samples. Here they are cosine "
        "similarities between the frames of one sample, as in online video distillation.",
        equation=r"\sum_{(l, m)} \frac{1}{T^2} \lVert G^s_l - G^t_m \rVert_F^2, \quad "
        r"G_{ij} = \cos(\bar f_i, \bar f_j)",
        use="For a student whose frames are compared with those of a teacher of another width or "
        "resolution. It has no parameters, and works with other numbers of frames.",
        pitfalls="The values are small: start with a weight of 10 to 100. Frames of short clips of "
        "one scene are all similar, so the loss carries little information there. It does not "
        "transfer the classes: combine it with kd.",
    )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        require_frames(student, teacher, type(self).__name__)
        return nn.Identity(), "similarities of the frames"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return temporal_relation_loss(student_features, teacher_features, reduction="none")
