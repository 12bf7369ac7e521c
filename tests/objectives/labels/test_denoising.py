"""Denoising score matching, compared with the formulas of the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Objectives
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.objectives.labels.denoising import Denoising, denoising_loss
from instil.taps import Net


class Scaled(nn.Module):
    """Network that returns a part of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return self.weight * noisy


def outputs(parameterisation: str, schedule: str = "cosine") -> dict[str, Any]:
    image = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    batch = {"image": image, "index": torch.arange(4)}
    return dict(Net(Denoiser(Scaled(), parameterisation, schedule), denoiser_call)(batch))


@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v", "flow", "edm"])
def test_the_default_is_the_error_of_the_network_output(parameterisation: str) -> None:
    result = outputs(parameterisation)
    values = Denoising()(result, {}, {})
    clean, noise = result["clean"], result["noise"]
    for i, time in enumerate(result["time"].double()):
        angle = time * torch.atan(torch.tensor(10.0).double().exp())
        alpha, sigma = angle.cos(), angle.sin()
        scale = (sigma**2 + alpha**2 / 4).sqrt()
        target = {
            "eps": noise[i],
            "x0": clean[i],
            "v": alpha * noise[i] - sigma * clean[i],
            "flow": noise[i] - clean[i],
            "edm": (clean[i] - alpha / 4 / scale**2 * result["noisy"][i]) * scale / (sigma / 2),
        }[parameterisation]
        network_input = result["noisy"][i] / (scale if parameterisation == "edm" else 1)
        expected = (0.3 * network_input - target).square().mean()
        assert values[i].item() == pytest.approx(expected.item(), rel=1e-4)


def test_weights_of_the_denoised_image() -> None:
    result = outputs("v")
    error = (result["denoised"] - result["clean"]).square().mean((1, 2, 3))
    snr = (result["alpha"] / result["sigma"]) ** 2
    for name, weight in (
        ("one", torch.ones(4)),
        ("snr", snr),
        ("snr_plus_one", snr + 1),
        ("truncated_snr", snr.clamp_min(1)),
        ("min_snr", snr.clamp_max(2)),
        ("edm", snr + 4),
    ):
        values = Denoising(noise_weight=name, gamma=2.0)(result, {}, {})  # type: ignore[arg-type]
        assert torch.allclose(values, weight * error, rtol=1e-4), name
    # v has the weight SNR + 1 on a schedule that preserves the variance.
    plain = Denoising()(result, {}, {})
    assert torch.allclose(plain, (snr + 1) * error, rtol=1e-3)


def test_gradients_reach_the_network_and_a_perfect_one_has_no_loss() -> None:
    result = outputs("v")
    update = Objectives({"denoising": Denoising()})(result, {}, {"index": torch.arange(4)})
    (gradient,) = torch.autograd.grad(update.losses["denoising"], result["prediction"])
    assert gradient.abs().max() > 0
    perfect = result | {"prediction": result["target"], "denoised": result["clean"]}
    for name in ("output", "snr"):
        assert Denoising(noise_weight=name)(perfect, {}, {}).max() == 0  # type: ignore[arg-type]


def test_wrong_options_and_shapes() -> None:
    with pytest.raises(ValueError, match=r"noise_weight: unknown loss weight 'min_snrr'.*min_snr"):
        Denoising(noise_weight="min_snrr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the shapes do not fit"):
        denoising_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(2))
