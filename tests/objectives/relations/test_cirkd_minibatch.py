from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.relations.cirkd_minibatch import CIRKDMinibatch, cirkd_minibatch_loss


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def test_agrees_with_plain_loops() -> None:
    student, teacher = (
        torch.randn(3, 4, 2, 3, dtype=torch.float64),
        torch.randn(3, 5, 2, 3, dtype=torch.float64),
    )
    sides = []
    for side in (student.numpy(), teacher.numpy()):
        images = [image.reshape(len(image), -1).T for image in side]
        sides.append([image / np.linalg.norm(image, axis=1, keepdims=True) for image in images])
    total = 0.0
    for i in range(3):
        for j in range(3):
            for pixel in range(6):
                q, p = (softmax(side[i][pixel] @ side[j].T / 0.2) for side in sides)
                total += (p * np.log(p / q)).sum() / 6
    assert np.isclose(float(cirkd_minibatch_loss(student, teacher, 0.2)), total / 9, rtol=1e-10)


def test_pooling_averages_patches() -> None:
    student, teacher = torch.randn(2, 4, 4, 6), torch.randn(2, 5, 4, 6)
    pooled = [
        side.unflatten(2, (2, 2)).unflatten(4, (3, 2)).mean((3, 5)) for side in (student, teacher)
    ]
    assert torch.allclose(
        cirkd_minibatch_loss(student, teacher, pool=2), cirkd_minibatch_loss(*pooled), rtol=1e-4
    )


def test_one_pixel_per_image_has_loss_zero() -> None:
    assert cirkd_minibatch_loss(torch.randn(3, 4, 1, 1), torch.randn(3, 5, 1, 1)) < 1e-7


@pytest.mark.parametrize("shapes", [((5, 8, 8), (17, 6)), ((16, 9), (7, 8, 8))])
def test_tokens_on_either_side(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    student, teacher = ({"features": (torch.randn(3, *shape),)} for shape in shapes)
    objective = CIRKDMinibatch()
    objective.build(student, teacher)
    loss = objective(student, teacher, {})
    assert loss.shape == ()
    assert loss > 0


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    compiled = torch.compile(cirkd_minibatch_loss, fullgraph=True, backend="eager")(
        student, teacher
    )
    assert torch.allclose(compiled, cirkd_minibatch_loss(student, teacher))
