from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from instil.objectives.relations.interactive_contrastive import interactive_contrastive_loss


def test_agrees_with_plain_loops() -> None:
    parts = [F.normalize(torch.randn(4, 5, dtype=torch.float64), dim=1) for _ in range(4)]
    image, text, teacher_image, teacher_text = (part.numpy() for part in parts)
    expected = []
    for query, others in ((image, teacher_text), (text, teacher_image)):
        for n in range(4):
            scores = np.exp([6.0 * query[n] @ other for other in others])
            expected.append(-np.log(scores[n] / scores.sum()))
    assert np.isclose(
        float(interactive_contrastive_loss(*parts, 6.0)), np.mean(expected), rtol=1e-10
    )


def test_student_images_do_not_meet_student_texts() -> None:
    image, text, teacher_image, teacher_text = (
        torch.randn(4, 5, requires_grad=True) for _ in range(4)
    )
    (gradient,) = torch.autograd.grad(
        interactive_contrastive_loss(image, text, teacher_image, teacher_text, 1.0),
        image,
        create_graph=True,
    )
    other = torch.autograd.grad(gradient.square().sum(), (text, teacher_text), allow_unused=True)
    assert other[0] is None
    assert other[1].abs().sum() > 0


def test_compiles_whole() -> None:
    parts = [torch.randn(4, 5) for _ in range(4)]
    compiled = torch.compile(interactive_contrastive_loss, fullgraph=True, backend="eager")(
        *parts, 3.0
    )
    assert torch.allclose(compiled, interactive_contrastive_loss(*parts, 3.0))
