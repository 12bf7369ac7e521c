from __future__ import annotations

import numpy as np
import torch

from instil.functional.attention_maps import (
    attention_map,
    attention_weights,
    channel_strength,
    position_strength,
)


def test_weights_are_a_softmax_with_mean_one() -> None:
    stage = torch.randn(2, 3, 2, 4).double()
    for strength, axes, shape in (
        (position_strength, (0,), (2, 1, 2, 4)),
        (channel_strength, (1, 2), (2, 3, 1, 1)),
    ):
        weights = attention_weights(strength(stage), 0.5)
        assert weights.shape == shape
        for n in range(2):
            expected = np.exp(np.abs(stage[n].numpy()).mean(axes) / 0.5)
            assert np.allclose(weights[n].flatten(), (expected / expected.mean()).flatten())


def test_a_map_of_nothing_and_a_huge_one_are_finite() -> None:
    for factor, power in ((0.0, 2), (0.0, 4), (1e15, 2), (1e30, 4)):
        stage = (factor * torch.randn(2, 3, 2, 2)).requires_grad_()
        attention_map(stage, power).sum().backward()
        assert stage.grad is not None
        assert torch.isfinite(stage.grad).all()
