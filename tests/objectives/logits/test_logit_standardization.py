"""Logit standardization against KD of z-scores."""

from __future__ import annotations

import numpy as np
import torch

from instil.objectives.logits.kd import KD, kd_loss
from instil.objectives.logits.logit_standardization import LogitStandardization


def test_equals_kd_of_z_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 6, generator=generator, dtype=torch.float64) * 3 for _ in range(2)
    )
    scores = [
        torch.from_numpy((z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True))
        for z in (student.numpy(), teacher.numpy())
    ]
    for scale in (True, False):
        values = LogitStandardization(3.0, scale)({"logits": student}, {"logits": teacher}, {})
        torch.testing.assert_close(
            values, kd_loss(*scores, 3.0, scale, reduction="none"), rtol=1e-6, atol=1e-9
        )


def test_the_range_of_the_student_does_not_matter() -> None:
    teacher = torch.tensor([[4.0, 1.0, -2.0, 0.5]])
    narrow = teacher / 10 + 3
    assert LogitStandardization()({"logits": narrow}, {"logits": teacher}, {}) < 1e-6
    assert KD(2.0)({"logits": narrow}, {"logits": teacher}, {}) > 0.1


def test_published_settings_are_the_default() -> None:
    objective = LogitStandardization()
    assert (objective.temperature, objective.scale, objective.standardize) == (2.0, True, True)
    assert np.isclose(LogitStandardization(1.0).temperature, 1.0)
