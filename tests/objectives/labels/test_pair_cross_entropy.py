"""Binary cross-entropy of pairs against a loop."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch

from instil.objectives.labels.pair_cross_entropy import pair_cross_entropy_loss

LABEL = torch.tensor([[1, 0, 0, -100.0], [0, 0, -100, 0], [1, 1, 0, 0], [-100] * 4])


@pytest.mark.parametrize("balanced", [True, False])
def test_the_loss_equals_a_loop(balanced: bool) -> None:
    student = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values = pair_cross_entropy_loss(student, LABEL, balanced, "none")
    for row in range(4):
        errors: dict[float, list[float]] = {}
        for score, label in zip(student[row].tolist(), LABEL[row].tolist(), strict=True):
            probability = 1 / (1 + math.exp(-score))
            if label >= 0:
                chosen = probability if label else 1 - probability
                errors.setdefault(label, []).append(-math.log(chosen))
        groups = list(errors.values()) if balanced else [list(chain.from_iterable(errors.values()))]
        means = [sum(group) / len(group) for group in groups if group]
        assert values[row].item() == pytest.approx(sum(means) / max(1, len(means)), abs=1e-6)
    values.sum().backward()
    assert student.grad is not None
    assert not student.grad[LABEL < 0].any()
    with pytest.raises(ValueError, match="target: wrong shape"):
        pair_cross_entropy_loss(student, LABEL[:, :2])
