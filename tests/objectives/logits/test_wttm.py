"""WTTM is TTM with weights."""

from __future__ import annotations

import torch

from instil.objectives.logits.ttm import TTM, ttm_loss
from instil.objectives.logits.wttm import WTTM


def test_equals_the_weighted_form_of_ttm() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 6, generator=generator) for _ in range(2))
    values = WTTM(0.3)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(
        values, ttm_loss(student, teacher, 0.3, weighted=True, reduction="none")
    )
    assert (values > TTM(0.3)({"logits": student}, {"logits": teacher}, {})).all()


def test_items_with_an_uncertain_teacher_have_more_weight() -> None:
    student = torch.zeros(2, 4)
    teacher = torch.tensor([[50.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    ratio = WTTM(0.5)({"logits": student}, {"logits": teacher}, {}) / TTM(0.5)(
        {"logits": student}, {"logits": teacher}, {}
    )
    torch.testing.assert_close(
        ratio, torch.tensor([1.0, 2.0]), rtol=1e-3, atol=0.0
    )  # sum of the powers: 1 if sure, 4 * (1/4) ** 0.5 if not at all
