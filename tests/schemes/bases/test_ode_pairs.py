"""Recorded pairs of noise and image."""

from __future__ import annotations

import pytest
import torch

from instil.schemes.diffusion.ode_regression import OdeRegression
from tests.schemes.denoisers import SIZE, clocked, denoiser, matching, prepared, teacher


@pytest.mark.parametrize("seed", [0, 3])
def test_the_pairs_do_not_have_the_noise_of_an_evaluation(seed: int) -> None:
    scheme = OdeRegression(denoiser(), teacher(), matching(), num_pairs=20, pair_steps=1)
    prepared(scheme).before_step(clocked() | {"seed": torch.tensor(seed)})
    # ``ImageSampler`` draws its noise in this way.
    generator = torch.Generator().manual_seed(seed)
    evaluated = torch.randn(20, 1, SIZE, SIZE, generator=generator)
    assert not torch.equal(scheme.pairs.noise, evaluated)
    both = torch.stack([scheme.pairs.noise.flatten(), evaluated.flatten()])
    assert abs(torch.corrcoef(both)[0, 1]) < 0.2
