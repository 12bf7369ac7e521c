from __future__ import annotations

import pytest
import torch

import instil
from instil.functional.logits import clamp_to_finite, require_class_target, without_target


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_clamped_logits_have_finite_differences_and_probability_zero(dtype: torch.dtype) -> None:
    logits = torch.tensor([1.0, -torch.inf, -3.0], dtype=dtype)
    clamped = clamp_to_finite(logits)
    assert torch.isfinite(clamped - clamped.flip(0)).all()
    assert torch.equal(clamped[[0, 2]], logits[[0, 2]])
    assert clamped.softmax(-1)[1] == 0


def test_a_larger_divisor_allows_longer_sums() -> None:
    clamped = clamp_to_finite(torch.full((4,), -torch.inf), divisor=4)
    assert torch.isfinite(clamped[:3].sum())
    assert clamp_to_finite(torch.full((4,), -torch.inf), divisor=1).sum() == -torch.inf


def test_the_target_class_is_separated_from_the_others() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    target, rest = without_target(logits, torch.tensor([2, -100]))
    assert target.tolist() == [3.0, 4.0]
    assert rest.tolist() == [[1.0, 2.0, -torch.inf], [-torch.inf, 5.0, 6.0]]


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(label: int) -> None:
    logits, target = torch.zeros(2, 3), torch.tensor([-100, label])
    message = rf"^target: .* Expected 0 to 2, or -100 for none, got {label}$"
    with pytest.raises(ValueError, match=message):
        instil.dkd_loss(logits, logits, target)
    # A compiled step and a device that works ahead are not stopped for the check.
    require_class_target(logits.to("meta"), target.to("meta"))


def test_symbols_out_of_range() -> None:
    logits, lengths = torch.zeros(1, 2, 3), torch.tensor([2])
    with pytest.raises(ValueError, match=r"^target: .* got 5$"):
        instil.ctc_loss(logits, torch.tensor([[5]]), lengths)
    joint, mask = torch.zeros(1, 1, 2, 3), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^target: .* got 5$"):
        instil.transducer_kd_loss(joint, joint, torch.tensor([[5]]), mask)
