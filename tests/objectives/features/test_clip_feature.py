from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.objectives.features.clip_feature import CLIPFeature, clip_feature_loss


def test_agrees_with_plain_loops() -> None:
    parts = [torch.randn(4, 5, dtype=torch.float64) for _ in range(4)]
    image, text, teacher_image, teacher_text = (part.numpy() for part in parts)
    expected = [
        sum(
            (image[n, d] - teacher_image[n, d]) ** 2 + (text[n, d] - teacher_text[n, d]) ** 2
            for d in range(5)
        )
        / 5
        for n in range(4)
    ]
    assert np.allclose(clip_feature_loss(*parts, reduction="none"), expected)
    assert np.isclose(float(clip_feature_loss(*parts)), np.mean(expected))


def test_lengths_do_not_matter() -> None:
    student, teacher = (
        {role: torch.randn(4, 5) for role in ("image_embedding", "text_embedding")}
        for _ in range(2)
    )
    objective = CLIPFeature()
    objective.build(student, teacher)
    values = objective(student, teacher, {})
    assert torch.allclose(
        objective({role: 7 * value for role, value in student.items()}, teacher, {}), values
    )
    unit = [
        F.normalize(side[role], dim=1)
        for side in (student, teacher)
        for role in ("image_embedding", "text_embedding")
    ]
    assert torch.allclose(values, clip_feature_loss(*unit, reduction="none"))


def test_invalid_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="clip_feature_loss, text: the student's shape"):
        clip_feature_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4)
        )


def test_compiles_without_graph_breaks() -> None:
    parts = [torch.randn(4, 5) for _ in range(4)]
    assert torch.allclose(
        torch.compile(clip_feature_loss, fullgraph=True, backend="eager")(*parts),
        clip_feature_loss(*parts),
    )
