"""Denoisers that draw different noisy images of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.core import Net
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.modules.drawn_noise import check_same_noise
from instil.teachers.frozen import Frozen


class Scaled(nn.Module):
    """Network of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return self.factor * noisy


def net(**options: Any) -> Net:
    return Net(Denoiser(Scaled(), **options), denoiser_call)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, None),
        ({"parameterisation": "x0", "steps": 4}, None),
        ({"schedule": {"type": "cosine"}}, None),
        ({"schedule": "flow"}, "schedule"),
        ({"schedule": "karras"}, "schedule"),
        ({"times": "logit_normal"}, "times"),
        ({"times": "log_normal"}, "times"),
    ],
)
def test_the_check_agrees_with_drawn_images(options: dict[str, Any], key: str | None) -> None:
    batch = {
        "image": torch.rand(4, 1, 8, 8),
        "index": torch.arange(4),
        "seed": torch.tensor(0),
    }
    student, teacher = net(**options), net()
    assert torch.allclose(student(batch)["noisy"], teacher(batch)["noisy"]) == (key is None)
    if key is None:
        check_same_noise(student, Frozen(teacher))
    else:
        with pytest.raises(ValueError, match=rf"^student\.options\.{key}: .* different noisy"):
            check_same_noise(student, Frozen(teacher))


def test_modules_without_a_denoiser_are_not_checked() -> None:
    check_same_noise(net(), nn.Linear(2, 2))
    check_same_noise(nn.Linear(2, 2), net())


def test_distil_refuses_different_noise() -> None:
    loader = [{"image": torch.rand(4, 1, 8, 8), "index": torch.arange(4)}]
    with pytest.raises(ValueError, match=r"student\.options\.schedule: .* different noisy"):
        instil.distil(
            net(), net(schedule="flow"), loader, "denoised_matching", task="diffusion", epochs=1
        )
