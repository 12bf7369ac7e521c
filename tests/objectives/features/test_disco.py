"""DisCo: distance to the teacher in two views, and InfoNCE of the views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.features.disco import DisCo, disco_loss


def unit(values: torch.Tensor) -> np.ndarray:
    array = values.detach().double().numpy()
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = torch.randn(4, 2, 3).double(), torch.randn(4, 2, 3).double()
    s, t = unit(student), unit(teacher)
    distance = np.mean([sum(((s[n, v] - t[n, v]) ** 2).sum() for v in range(2)) for n in range(4)])
    contrast = 0.0
    for one, other in ((0, 1), (1, 0)):
        for n in range(4):
            powers = [math.exp(s[n, one] @ s[m, other] / 0.3) for m in range(4)]
            contrast -= math.log(powers[n] / sum(powers)) / 8
    value = disco_loss(student, teacher, temperature=0.3, contrast=0.7)
    assert float(value) == pytest.approx(distance + 0.7 * contrast)


def test_no_gradient_reaches_the_key() -> None:
    student = torch.randn(3, 2, 4, requires_grad=True)
    teacher = student.detach()
    # At a match the distance has no gradient, so only the queries' gradients remain.
    disco_loss(student, teacher).backward()
    assert student.grad is not None
    units = torch.nn.functional.normalize(student.detach(), dim=2)
    expected = torch.zeros_like(units)
    for one, other in ((0, 1), (1, 0)):
        weights = (units[:, one] @ units[:, other].T / 0.2).softmax(1)
        expected[:, one] = (weights @ units[:, other] - units[:, other]) / 0.2 / 6
    # Through the normalisation only the part across the direction remains.
    across = expected - (expected * units).sum(2, keepdim=True) * units
    torch.testing.assert_close(student.grad, across / student.detach().norm(dim=2, keepdim=True))


def test_views_are_matched_by_index() -> None:
    objective = DisCo(layers=1)
    student, teacher = {"embedding": torch.randn(6, 3)}, {"embedding": torch.randn(6, 4)}
    objective.build(student, teacher)
    batch = {"index": torch.tensor([7, 2, 7, 5, 2, 9]), "view": torch.tensor([0, 1, 1, 0, 0, 0])}
    projected, target = objective.embed(student, teacher)
    pairs = torch.tensor([[4, 1], [0, 2]])
    torch.testing.assert_close(
        objective(student, teacher, batch), disco_loss(projected[pairs], target[pairs])
    )
    alone = objective(student, teacher, {"index": torch.arange(6)})
    assert alone.item() == 0
    alone.backward()


def test_a_wrong_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected two views \(N, 2, D\), got \(4, 3, 2\)"):
        disco_loss(torch.randn(4, 3, 2), torch.randn(4, 3, 2))
