"""Temporal difference distillation: changes of the features from frame to frame."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Card
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.frames import require_frames
from instil.functional.logits import apply_reduction
from instil.objectives.bases.feature_objective import FeatureObjective


def temporal_difference_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of the changes of features between neighbouring frames.

    Args:
        student_features: (N, C, T, *grid).
        teacher_features: (N, C, T, *grid).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> video = torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 3, 1, 1)
        >>> temporal_difference_loss(torch.zeros_like(video), video)
        tensor(2.5000)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "temporal_difference_loss", 3
    )
    changes = student_features.diff(dim=2), teacher_features.diff(dim=2)
    return apply_reduction(squared_error(*changes), reduction)


class TemporalDifference(FeatureObjective):
    """Squared difference of the changes of adapted student levels and of teacher levels."""

    card = Card(
        "TDN: temporal difference networks for efficient action recognition",
        "https://arxiv.org/abs/2012.10071",
        "CVPR",
        2021,
        source="features",
        tasks=("video_classification",),
        grids=("3d",),
        deviations="The paper is an architecture that computes differences of features between "
        "frames. Here student and teacher are compared by these differences: the mean squared "
        "error after a 1x1 convolution where the channels differ.",
        equation=r"\sum_{(l, m)} \frac{1}{(T-1)CHW} \sum_t \lVert (r_l(f^s_{l,t+1}) - "
        r"r_l(f^s_{l,t})) - (f^t_{m,t+1} - f^t_{m,t}) \rVert_2^2",
        use="For classes that differ by motion: what is constant in a clip, such as the "
        "background, does not count. It needs feature levels with an axis of time on both sides.",
        pitfalls="The values are smaller than those of fitnet, because neighbouring frames are "
        "similar: check the share of the loss. Differences amplify noise. If the numbers of "
        "frames differ, the student's features are interpolated in time. It does not transfer the "
        "classes: combine it with kd.",
    )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        require_frames(student, teacher, type(self).__name__)
        return super().connect(student, teacher)

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return temporal_difference_loss(
            connection(student_features), as_map(teacher_features), reduction="none"
        )
