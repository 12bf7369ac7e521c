"""Scale-invariant error against sums that are written out."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.labels.scale_invariant_log import ScaleInvariantLog, scale_invariant_log_loss


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_equals_the_formula(balance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, target = (0.5 + torch.rand(2, 3, 4, generator=generator) for _ in range(2))
    is_known = torch.rand(2, 3, 4, generator=generator) > 0.3
    is_known[1] = False
    pairs = zip(student[0][is_known[0]].tolist(), target[0][is_known[0]].tolist(), strict=True)
    d = [math.log(a) - math.log(b) for a, b in pairs]
    expected = sum(x * x for x in d) / len(d) - balance * (sum(d) / len(d)) ** 2
    values = scale_invariant_log_loss(student, target, is_known, balance, "none")
    assert values.tolist() == pytest.approx([expected, 0.0], rel=1e-5, abs=1e-7)


def test_a_factor_does_not_matter_with_full_balance() -> None:
    target = torch.tensor([[[1.0, 2.0, 3.0]]])
    is_known = torch.ones(1, 1, 3, dtype=torch.bool)
    assert scale_invariant_log_loss(3 * target, target, is_known, 1.0).abs() < 1e-6
    assert scale_invariant_log_loss(3 * target, target, is_known, 0.5) > 0.5


def test_images_and_pixels_without_a_depth_do_not_count() -> None:
    logits = torch.tensor([[[[2.0], [torch.nan]]], [[[torch.nan], [1.0]]]], requires_grad=True)
    label = torch.tensor([[[1.0, -100.0]], [[-100.0, 0.0]]])
    objectives = Objectives({"it": ScaleInvariantLog()})
    update = objectives({"logits": logits}, {}, {"label": label, "valid": label > -200})
    assert update.losses["it"].item() == pytest.approx(math.log(2) ** 2 / 2)
    update.losses["it"].backward()
    assert logits.grad is not None
    assert (logits.grad != 0).flatten().tolist() == [True, False, False, False]
