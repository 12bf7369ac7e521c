from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.functional.diffusion.features import add_noise, denoise, signal_variance
from instil.modules.noise_model import NoiseModel


def test_the_schedule_is_a_product_of_linear_betas() -> None:
    signal_shares = np.cumprod([1 - (1e-4 + (0.02 - 1e-4) * n / 999) for n in range(1000)])
    assert np.allclose(signal_variance(torch.arange(1000)), signal_shares, rtol=1e-10)
    assert signal_variance(torch.tensor([-3])) == 1
    clean, noise, time = (
        torch.randn(3, 2, 2, dtype=torch.float64),
        torch.randn(3, 2, 2, dtype=torch.float64),
        torch.tensor([0, 999, 400]),
    )
    for n, t in enumerate(time.tolist()):
        expected = (
            np.sqrt(signal_shares[t]) * clean[n].numpy()
            + np.sqrt(1 - signal_shares[t]) * noise[n].numpy()
        )
        assert np.allclose(add_noise(clean, noise, time)[n], expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_who_knows_the_noise_finds_the_clean_map(steps: int) -> None:
    clean, noise = (
        torch.randn(3, 2, 4, 4, dtype=torch.float64),
        torch.randn(3, 2, 4, 4, dtype=torch.float64),
    )
    seen: list[int] = []

    def predict(values: Tensor, time: Tensor) -> Tensor:
        seen.append(int(time))
        assert torch.allclose(values, add_noise(clean, noise, time.expand(3)), rtol=1e-9)
        return noise

    first = torch.full((3,), (steps - 1) * (1000 // (2 * steps)))
    assert torch.allclose(denoise(add_noise(clean, noise, first), predict, steps), clean, rtol=1e-9)
    assert seen == [n * (1000 // (2 * steps)) for n in range(steps)][::-1]


@pytest.mark.parametrize("pointwise", [False, True])
def test_the_model_knows_the_time_and_keeps_the_shape(pointwise: bool) -> None:
    model, values = (
        NoiseModel(6, pointwise, "group"),
        torch.randn(2, 6, *((1, 1) if pointwise else (3, 5))),
    )
    early, late = (model(values, torch.tensor([time])) for time in (0, 900))
    assert early.shape == values.shape
    assert not torch.allclose(early, late)
    assert torch.allclose(
        model(values, torch.tensor([0, 900])), torch.stack([early[0], late[1]]), atol=1e-6
    )
