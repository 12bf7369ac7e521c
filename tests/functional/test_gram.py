from __future__ import annotations

import pytest
import torch

from instil.functional.gram import gram


def test_is_the_mean_product_of_two_channels() -> None:
    first, second = torch.randn(2, 3, 2, 4).double(), torch.randn(2, 5, 2, 4).double()
    ours = gram(first, second)
    assert ours.shape == (2, 3, 5)
    for c in range(3):
        for d in range(5):
            pairs = zip(
                first[1, c].flatten().tolist(), second[1, d].flatten().tolist(), strict=True
            )
            assert float(ours[1, c, d]) == pytest.approx(sum(a * b for a, b in pairs) / 8)


def test_half_precision_is_raised() -> None:
    stage = torch.ones(1, 1, 300, 300, dtype=torch.bfloat16)
    assert gram(stage, stage).item() == 1
