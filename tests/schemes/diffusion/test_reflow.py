from __future__ import annotations

import pytest
import torch

from instil.schemes.diffusion.reflow import Reflow
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher

FLOW = {"schedule": "flow", "parameterisation": "flow"}


def scheme() -> Reflow:
    return Reflow(denoiser(**FLOW), teacher(**FLOW), matching(), num_pairs=20, pair_steps=2)


def test_contracts() -> None:
    check_scheme(scheme, batch)


def test_the_loss_is_the_error_of_the_velocity_of_a_pair() -> None:
    it = prepared(scheme())
    it.before_step(clocked())
    pair = it.pairs.draw(clocked())
    time = it.draw(clocked()).time
    share = time.view(-1, 1, 1, 1)
    noisy = (1 - share) * pair.image + share * pair.noise
    velocity = it.run_student(noisy, time, pair.label)["prediction"]
    expected = (velocity - (pair.noise - pair.image)).square().mean()
    update = next(iter(it.step(clocked())))
    assert torch.allclose(update.losses["matching"], expected, rtol=1e-4)


def test_curved_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student.options.schedule: .* Expected flow, got cosine"):
        Reflow(denoiser(), teacher(), matching())
