"""Noise of the images of an evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.tasks.bases.image_sampler import ImageSampler
from tests.schemes.denoisers import denoiser

SHAPE = (1, 4, 4)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_noise_between_two_steps_is_not_the_first_noise(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = denoiser(solver="consistency", steps=3, num_classes=0).model
    added: list[Tensor] = []
    add_noise = model.schedule.add_noise

    def record(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        added.append(noise.clone())
        return add_noise(clean, noise, time)

    monkeypatch.setattr(model.schedule, "add_noise", record)
    images = ImageSampler(model).generate(20, SHAPE, seed=seed)
    first = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(seed))
    assert len(added) == 3
    for noise in added:
        assert abs(torch.corrcoef(torch.stack([noise.flatten(), first.flatten()]))[0, 1]) < 0.2
    assert torch.equal(images, ImageSampler(model).generate(20, SHAPE, seed=seed))
