"""Label smoothing in both forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.labels.label_smoothing import LabelSmoothing, label_smoothing_loss

LOGITS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
TARGET = torch.tensor([0, 4, -100, 2])


def test_the_form_of_the_paper_agrees_with_torch() -> None:
    expected = F.cross_entropy(LOGITS, TARGET, label_smoothing=0.2)
    torch.testing.assert_close(label_smoothing_loss(LOGITS, TARGET, 0.2), expected)
    values = LabelSmoothing(0.2)({"logits": LOGITS}, {}, {"label": TARGET})
    torch.testing.assert_close(
        values, F.cross_entropy(LOGITS, TARGET, label_smoothing=0.2, reduction="none")
    )


def test_others_only_gives_the_label_no_share_of_the_smoothing() -> None:
    expected = []
    for row, label in zip(LOGITS.tolist(), TARGET.tolist(), strict=True):
        mass = math.log(sum(math.exp(z) for z in row))
        expected.append(
            -sum((0.8 if c == label else 0.2 / 4) * (z - mass) for c, z in enumerate(row))
            if label >= 0
            else 0.0
        )
    values = label_smoothing_loss(LOGITS, TARGET, 0.2, others_only=True, reduction="none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_no_smoothing_is_cross_entropy_and_items_may_have_any_shape() -> None:
    logits, target = LOGITS.reshape(2, 2, 5), TARGET.reshape(2, 2)
    for others_only in (False, True):
        torch.testing.assert_close(
            label_smoothing_loss(logits, target, 0.0, others_only),
            cross_entropy_loss(LOGITS, TARGET),
        )


def test_one_class_and_multi_label_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        label_smoothing_loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="expected class indices"):
        label_smoothing_loss(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.long))
