from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from instil.core import Objectives
from instil.modules.noisy_sample import to_model_range
from instil.schemes.bases.generated_images import generate, start_step
from instil.schemes.diffusion.dmd2 import DMD2
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, constant, denoiser, matching, prepared, teacher


def scheme(**options: float) -> DMD2:
    return DMD2(denoiser(), teacher(), matching(), **{"fake_updates": 1, **options})


def test_contracts() -> None:
    # Both losses rise while the second network learns: matching has a small weight, and the
    # critic does not learn.
    def make() -> DMD2:
        objectives = Objectives(matching(), {"matching": 0.01})
        return DMD2(denoiser(), teacher(), objectives, fool=1.0, critic=0.0, fake_updates=1)

    check_scheme(make, batch)


def test_the_critic_separates_the_data_from_generated_images() -> None:
    it = prepared(scheme(fool=0.5, critic=2.0, penalty=3.0))
    sample = generate(it, clocked(), 1)
    noisy = it.schedule.add_noise(to_model_range(clocked()["image"]), sample.noise, sample.time)

    def score(images: torch.Tensor) -> torch.Tensor:
        features = it.run_other(it.fake, images, sample.time, sample.label)["features"][-1]
        return it.head(features).flatten(1).mean(1)

    plain = F.softplus(-score(noisy)) + F.softplus(score(sample.noisy))
    losses = it.fake_losses(clocked(), 1)
    it.penalty = 0.0
    assert torch.allclose(it.fake_losses(clocked(), 1)["critic"], 2 * plain.mean())
    assert losses["critic"] > 2 * plain.mean()


def test_the_student_fools_the_critic() -> None:
    it = prepared(scheme(fool=0.5))
    student, _ = it.forward_both(clocked())
    loss = it.compute_losses(clocked()).losses["fool"]
    assert torch.allclose(loss, 0.5 * F.softplus(-student["score"]).mean())
    gradients = torch.autograd.grad(loss, list(it.student.parameters()), allow_unused=True)
    assert any(value is not None and value.abs().max() > 0 for value in gradients)


def test_several_steps_start_from_generated_images() -> None:
    it = prepared(scheme(steps=3))
    noisy, time = start_step(it, clocked(), clocked()["label"], 0)
    grid = it.schedule.grid(3).float()
    assert {round(float(value), 4) for value in time} == {1.0, 0.6667, 0.3333}
    first = time == grid[0]
    # The first step starts from noise, the others from the student's images.
    assert float(noisy[first].std()) == pytest.approx(1, abs=0.2)
    assert torch.isfinite(noisy).all()
    assert generate(it, clocked()).clean.requires_grad
    assert it.student_denoiser.solver == "consistency"


def test_without_a_critic_no_features_are_needed() -> None:
    plain = {"num_classes": 0}
    it = DMD2(denoiser(**plain), Frozen(constant()), matching(), fool=0.0)
    assert set(prepared(it).counts(clocked())) == {"matching", "fake"}
    critic = DMD2(denoiser(**plain), Frozen(constant()), matching())
    with pytest.raises(ValueError, match="the critic of dmd2 reads 'features'"):
        critic.prepare(batch())
