from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.features.temporal_difference import (
    TemporalDifference,
    temporal_difference_loss,
)


def test_is_the_mean_squared_difference_of_changes() -> None:
    student, teacher = (torch.randn(3, 2, 4, 2, 3, dtype=torch.float64) for _ in range(2))
    a, b = student.numpy(), teacher.numpy()
    expected = np.zeros(3)
    for t in range(3):
        change = (a[:, :, t + 1] - a[:, :, t]) - (b[:, :, t + 1] - b[:, :, t])
        expected += (change**2).sum((1, 2, 3)) / (3 * 2 * 2 * 3)
    value = temporal_difference_loss(student, teacher, reduction="none")
    assert np.allclose(value, expected, rtol=1e-12)


def test_a_constant_background_does_not_count() -> None:
    student = torch.randn(2, 3, 4, 2, 2)
    background = torch.randn(2, 3, 1, 2, 2)
    torch.testing.assert_close(
        temporal_difference_loss(student, student + background), torch.tensor(0.0)
    )


@pytest.mark.parametrize("shape", [(2, 4, 6, 6), (2, 4, 1, 6, 6)])
def test_features_without_frames_are_refused(shape: tuple[int, ...]) -> None:
    objective = TemporalDifference()
    video = {"features": (torch.randn(2, 4, 5, 6, 6),)}
    with pytest.raises(ValueError, match=r"TemporalDifference: the student's features have no two"):
        objective.build({"features": (torch.randn(shape),)}, video)
    with pytest.raises(ValueError, match=r"TemporalDifference: the teacher's features have no two"):
        objective.build(video, {"features": (torch.randn(shape),)})
