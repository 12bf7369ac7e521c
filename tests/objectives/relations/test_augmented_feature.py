from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from instil.core import Outputs
from instil.objectives.relations.augmented_feature import AugmentedFeature, augmented_feature_loss


def outputs(width: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        role: torch.randn(4, width, generator=generator)
        for role in ("image_embedding", "text_embedding")
    }


def test_agrees_with_plain_loops() -> None:
    image, text = (F.normalize(torch.randn(4, 5, dtype=torch.float64), dim=1) for _ in range(2))
    expected = []
    for query, others in ((image.numpy(), text.numpy()), (text.numpy(), image.numpy())):
        for n in range(4):
            scores = np.exp([6.0 * query[n] @ other for other in others])
            expected.append(-np.log(scores[n] / scores.sum()))
    assert np.isclose(
        float(augmented_feature_loss(image, text, 6.0)), np.mean(expected), rtol=1e-10
    )


def test_both_sides_are_fused_to_the_students_width() -> None:
    student, teacher = outputs(3, 0), outputs(7, 1)
    objective = AugmentedFeature()
    objective.build(student, teacher)
    assert objective.image_fusion.weight.shape == (3, 10)
    fused = []
    for fusion, role in (
        (objective.image_fusion, "image_embedding"),
        (objective.text_fusion, "text_embedding"),
    ):
        both = torch.cat([F.normalize(side[role], dim=1) for side in (student, teacher)], 1)
        fused.append(F.normalize(fusion(both), dim=1))
    assert torch.allclose(
        objective(student, teacher, {}),
        augmented_feature_loss(fused[0], fused[1], objective.scale()),
    )


def test_compiles_whole() -> None:
    image, text = torch.randn(4, 5), torch.randn(4, 5)
    compiled = torch.compile(augmented_feature_loss, fullgraph=True, backend="eager")(
        image, text, 3.0
    )
    assert torch.allclose(compiled, augmented_feature_loss(image, text, 3.0))
