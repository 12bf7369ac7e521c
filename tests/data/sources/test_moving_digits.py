"""Moving digits: the motion is that of the label."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.moving_digits import DIRECTIONS, moving_digits


@pytest.mark.parametrize("label", ["direction", "both"])
def test_the_centre_of_mass_moves_in_the_direction_of_the_label(label: str) -> None:
    data = moving_digits(noise=0, speed=1.0, size=20, label=label)  # type: ignore[arg-type]
    batch = data.train.__getitems__(range(100))
    video = batch["video"]
    assert video.shape == (100, 1, 8, 20, 20)
    mass = video.sum((1, 3, 4))
    x = (video.sum((1, 3)) * torch.arange(20)).sum(2) / mass
    y = (video.sum((1, 4)) * torch.arange(20)).sum(2) / mass
    motion = torch.stack([x[:, -1] - x[:, 0], y[:, -1] - y[:, 0]], 1)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    direction = batch["label"] % len(DIRECTIONS)
    assert bool(((motion * vectors[direction]).sum(1) > 3).all())


def test_digit_labels_are_those_of_the_image_at_rest() -> None:
    data = moving_digits(label="both", frames=2, clips=2)
    assert len(data.train) == 2000
    assert len(data.test) == 500
    assert data.classes[5] == "1 down"
    batch = data.train.__getitems__([3, 1003])
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert (batch["label"] // 4).unique().numel() == 1
    digits = moving_digits(label="digit", frames=2, clips=2)
    assert torch.equal(digits.train.label, data.train.label // 4)
