from __future__ import annotations

import torch

from instil.weightings.agreement import Agreement


def test_is_the_teachers_probability_of_the_label() -> None:
    teacher = torch.randn(4, 5)
    label = torch.tensor([0, 3, -100, 4])
    factor = Agreement()({}, {"logits": teacher}, {"label": label})
    probability = teacher.softmax(1)
    assert torch.allclose(
        factor,
        torch.stack([probability[0, 0], probability[1, 3], torch.tensor(1.0), probability[3, 4]]),
    )
    assert torch.equal(
        Agreement(strength=0.0)({}, {"logits": teacher}, {"label": label}), torch.ones(4)
    )


def test_positions_have_factors_of_their_own() -> None:
    factor = Agreement(strength=2.0)(
        {}, {"logits": torch.zeros(2, 3, 4)}, {"label": torch.zeros(2, 3, dtype=torch.long)}
    )
    assert torch.allclose(factor, torch.full((2, 3), 1 / 16))
