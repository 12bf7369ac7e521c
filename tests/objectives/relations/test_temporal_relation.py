from __future__ import annotations

import numpy as np
import torch

from instil.objectives.relations.temporal_relation import temporal_relation_loss


def relations(features: np.ndarray) -> np.ndarray:
    """Cosine similarities (T, T) of the frames of one video (C, T, H, W)."""
    frames = features.mean((2, 3)).T
    frames = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    return np.asarray(frames @ frames.T)


def test_is_the_squared_difference_of_cosine_similarities() -> None:
    student = torch.randn(3, 4, 5, 2, 2, dtype=torch.float64)
    teacher = torch.randn(3, 6, 5, 3, 3, dtype=torch.float64)
    expected = [
        ((relations(a) - relations(b)) ** 2).mean()
        for a, b in zip(student.numpy(), teacher.numpy(), strict=True)
    ]
    value = temporal_relation_loss(student, teacher, reduction="none")
    assert np.allclose(value, expected, rtol=1e-12)


def test_more_frames_are_averaged_to_the_smaller_number() -> None:
    student = torch.randn(2, 4, 3, 2, 2)
    teacher = student.repeat_interleave(2, 2)
    value = temporal_relation_loss(student, teacher)
    torch.testing.assert_close(value, torch.tensor(0.0), atol=1e-10, rtol=0)


def test_does_not_depend_on_the_scale_of_a_frame() -> None:
    student, teacher = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    scaled = student * torch.tensor([1.0, 5.0, 0.1]).view(1, 1, 3, 1, 1)
    torch.testing.assert_close(
        temporal_relation_loss(scaled, teacher), temporal_relation_loss(student, teacher)
    )
