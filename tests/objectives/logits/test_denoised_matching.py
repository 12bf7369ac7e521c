from __future__ import annotations

import pytest
import torch

from instil.objectives.logits.denoised_matching import DenoisedMatching, denoised_matching_loss


def test_distances_by_hand() -> None:
    student = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    teacher = torch.zeros(2, 2)
    expected = {"l1": 3.5, "l2": 12.5, "huber": (25 + 144) ** 0.5 - 12}
    for distance, value in expected.items():
        values = denoised_matching_loss(student, teacher, None, distance, 12.0, "none")
        assert values.tolist() == pytest.approx([value, 0.0], abs=1e-6)
    entries = ((9 + 144) ** 0.5 + (16 + 144) ** 0.5) / 2 - 12
    loss = denoised_matching_loss(student, teacher, None, "entry_huber", 12.0, "none")
    assert loss.tolist() == pytest.approx([entries, 0.0], abs=1e-5)
    with pytest.raises(ValueError, match=r"distance: unknown value.* Did you mean huber\?"):
        denoised_matching_loss(student, teacher, None, "hubber")


def test_equal_images_have_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, requires_grad=True)
    for distance in ("huber", "entry_huber"):
        loss = denoised_matching_loss(student, torch.zeros(2, 3), None, distance, 0.0)
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.equal(gradient, torch.zeros(2, 3))


def test_a_scheme_sets_weights_and_the_compared_quantity() -> None:
    objective = DenoisedMatching()
    student = {"denoised": torch.zeros(2, 1), "compared": torch.ones(2, 1)}
    teacher = {"denoised": torch.zeros(2, 1), "compared": torch.full((2, 1), 3.0)}
    objective.resolve(student, teacher)
    weight = torch.tensor([1.0, 0.5])
    values = objective(student, teacher | {"loss_weight": weight}, {})
    assert values.tolist() == [4.0, 2.0]
    objective.resolve({"denoised"}, {"denoised"})
    assert objective(student, teacher, {}).tolist() == [0.0, 0.0]
