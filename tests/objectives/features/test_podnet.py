from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.objectives.features.podnet import PODNet, podnet_loss


def by_hand(student: Tensor, teacher: Tensor) -> list[float]:
    """Distance of the normalized sums over height and over width, with loops."""
    values = []
    for sample in range(len(student)):
        vectors = []
        for side in (student[sample], teacher[sample]):
            channels, height, width = side.shape
            sums = []
            for c in range(channels):
                sums += [
                    sum(float(side[c, h, w]) ** 2 for h in range(height)) for w in range(width)
                ]
                sums += [
                    sum(float(side[c, h, w]) ** 2 for w in range(width)) for h in range(height)
                ]
            norm = math.sqrt(sum(value**2 for value in sums))
            vectors.append([value / norm for value in sums])
        values.append(math.dist(*vectors))
    return values


def test_is_the_distance_of_the_pooled_maps() -> None:
    student, teacher = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5).double()
    values = podnet_loss(student, teacher, "none")
    assert values.tolist() == pytest.approx(by_hand(student, teacher), rel=1e-6)
    assert float(podnet_loss(student, teacher)) == pytest.approx(float(values.mean()))
    assert float(podnet_loss(3 * student, student)) == pytest.approx(0, abs=1e-9)


def test_the_loss_is_the_weighted_sum_of_levels_and_embedding() -> None:
    sides = [
        {
            "features": (torch.randn(3, 2, 4, 4), torch.randn(3, 5, 2, 2)),
            "embedding": torch.randn(3, 6),
        }
        for _ in range(2)
    ]
    student, teacher = sides
    objective = PODNet(spatial=2.0, flat=0.5)
    objective.build(student, teacher)
    levels = zip(student["features"], teacher["features"], strict=True)
    spatial = torch.stack([podnet_loss(*pair, "none") for pair in levels]).mean(0)
    cosine = torch.cosine_similarity(student["embedding"], teacher["embedding"])
    assert torch.allclose(objective(student, teacher, {}), 2 * spatial + (1 - cosine) / 2)


def test_equal_outputs_have_no_loss_and_a_finite_gradient() -> None:
    level = torch.randn(3, 2, 4, 4).requires_grad_()
    outputs = {"features": (level,), "embedding": torch.randn(3, 6)}
    objective = PODNet()
    objective.build(outputs, outputs)
    loss = objective(outputs, {**outputs, "features": (level.detach(),)}, {}).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert level.grad is not None
    assert level.grad.isfinite().all()


def test_an_adapter_maps_another_embedding() -> None:
    student, teacher = (
        {"features": (torch.randn(2, width, 4, 4),), "embedding": torch.randn(2, width)}
        for width in (3, 4)
    )
    objective = PODNet()
    objective.build(student, teacher)
    objective(student, teacher, {}).sum().backward()
    gradients = [parameter.grad for parameter in objective.embedding_adapter.parameters()]
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
