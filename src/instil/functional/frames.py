"""Frames of video features (N, C, T, H, W)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def require_frames(student_features: Tensor, teacher_features: Tensor, objective: str) -> None:
    """Check that the features of both networks have an axis of at least two frames.

    Args:
        student_features: features of a dry batch.
        teacher_features: features of a dry batch.
        objective: name of the objective, for the message.

    Raises:
        ValueError: for features without frames, and for a single frame.
    """
    for side, features in (("student", student_features), ("teacher", teacher_features)):
        if features.ndim != 5 or features.shape[2] < 2:
            raise ValueError(
                f"{objective}: the {side}'s features have no two frames. Expected "
                f"(N, C, T, H, W) with T of at least 2, got {tuple(features.shape)}. Choose levels "
                "before the pooling over time, or remove the objective"
            )


def frame_vectors(features: Tensor, num_frames: int | None = None) -> Tensor:
    """Mean of the features over the area of each frame.

    Args:
        features: (N, C, T, H, W).
        num_frames: number of frames of the result, means of neighbouring ones; None: all T.

    Returns:
        (N, T, C).

    Example:
        >>> import torch
        >>> frame_vectors(torch.arange(4.0).view(1, 1, 4, 1, 1), 2)
        tensor([[[0.5000],
                 [2.5000]]])
    """
    vectors = to_float32(features).flatten(3).mean(3)
    if num_frames is not None and num_frames != vectors.shape[2]:
        vectors = F.adaptive_avg_pool1d(vectors, num_frames)
    return vectors.mT
