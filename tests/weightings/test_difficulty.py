from __future__ import annotations

import torch

from instil.weightings.difficulty import Difficulty


def test_is_the_share_that_does_not_overlap() -> None:
    student = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]).log()
    teacher = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.0, 1.0]]).log()
    for focus in (1.0, 2.0):
        factor = Difficulty(focus)(
            {"logits": student.nan_to_num(neginf=-1e4)},
            {"logits": teacher.nan_to_num(neginf=-1e4)},
            {},
        )
        assert torch.allclose(factor, torch.tensor([0.3, 0.0, 1.0]) ** focus, atol=1e-6)
