"""Affine-invariant loss against sorted lists."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.affine_invariant import AffineInvariant, affine_invariant_loss


def aligned(values: list[float]) -> list[float]:
    median = sorted(values)[(len(values) - 1) // 2]
    scale = sum(abs(value - median) for value in values) / len(values)
    return [(value - median) / scale for value in values]


def example() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 5, generator=generator).double() for _ in range(2))
    valid = torch.rand(2, 3, 5, generator=generator) > 0.3
    valid[1] = False
    return student, teacher, valid


def test_equals_the_formula() -> None:
    student, teacher, valid = example()
    sides = [aligned(side[0][valid[0]].tolist()) for side in (student, teacher)]
    differences = [abs(a - b) for a, b in zip(*sides, strict=True)]
    values = affine_invariant_loss(student, teacher, valid, "none")
    assert values.tolist() == pytest.approx([sum(differences) / len(differences), 0.0])


def test_scale_and_shift_do_not_matter() -> None:
    student, _, valid = example()
    assert affine_invariant_loss(5 * student - 2, student, valid).abs() < 1e-9


def test_pixels_that_are_not_valid_do_not_count() -> None:
    student, teacher, valid = example()
    student = torch.where(valid, student, torch.nan).requires_grad_()
    batch = {"valid": valid, "index": torch.arange(2)}
    sides = ({"logits": side[..., None]} for side in (student, teacher))
    update = Objectives({"it": AffineInvariant()})(*sides, batch)
    expected = affine_invariant_loss(student.detach(), teacher, valid, "none")[0]
    assert update.losses["it"].item() == pytest.approx(expected.item(), rel=1e-5)
    update.losses["it"].backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
