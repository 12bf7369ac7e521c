"""Modalities of digits: pairs of one digit, with noise of their own."""

from __future__ import annotations

import torch

from instil.data.sources.digit_modalities import digit_modalities, edge_strength
from instil.data.sources.digits import digits


def test_all_modalities_show_the_same_digit() -> None:
    batch = digit_modalities(noise=0).test.__getitems__(range(20))
    image = digits().test.__getitems__(range(20))["image"]
    assert torch.equal(batch["image"], image)
    assert torch.equal(batch["both"], torch.cat([batch["image"], batch["edges"]], 1))
    torch.testing.assert_close(batch["small"][:, :, 1, 2], image[:, :, 2:4, 4:6].mean((2, 3)))
    noisy = digit_modalities(noise=0.5).test.__getitems__(range(20))
    assert (noisy["image"] - image).abs().mean() > 0.1
    assert torch.equal(noisy["small"], batch["small"])


def test_edges_are_the_length_of_the_gradient() -> None:
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8) / 16
    assert torch.allclose(edge_strength(ramp)[..., 1:-1], torch.tensor(0.125))
    assert edge_strength(torch.ones(1, 1, 4, 4)).abs().max() == 0
