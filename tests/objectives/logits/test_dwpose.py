"""DWPose against sums that are written out."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.logits.dwpose import DWPose


def test_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = []
    for _ in range(2):
        columns = torch.randn(2, 3, 8, generator=generator)
        sides.append({"x_logits": columns, "y_logits": torch.randn(2, 3, 6, generator=generator)})
    valid = torch.tensor([[True, True, True], [True, False, True]])
    sides[0]["x_logits"][1, 1] = torch.nan
    batch = {"valid": valid, "index": torch.arange(2)}
    update = Objectives({"it": DWPose(sharpness=2.0)})(sides[0], sides[1], batch)
    means = []
    for image in range(2):
        total = 0.0
        for keypoint in valid[image].nonzero()[:, 0].tolist():
            for role in ("x_logits", "y_logits"):
                p, q = (
                    (2 * side[role][image, keypoint]).softmax(0).tolist() for side in sides[::-1]
                )
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        means.append(total / int(valid[image].sum()))
    assert update.losses["it"].item() == pytest.approx(sum(means) / 2, rel=1e-4)


def test_other_bins_are_an_error_before_training() -> None:
    student, teacher = (
        {"x_logits": torch.zeros(1, 3, bins), "y_logits": torch.zeros(1, 3, 6)} for bins in (8, 16)
    )
    with pytest.raises(ValueError, match=r"Expected x_logits of one shape .*got \(3, 8\) and"):
        DWPose().build(student, teacher)
