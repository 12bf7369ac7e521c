from __future__ import annotations

import torch

from instil.core import Objectives
from instil.functional.diffusion.distribution_matching import distribution_matching_loss
from instil.schemes.bases.generated_images import generate
from instil.schemes.diffusion.dmd import DMD
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher


def scheme(**options: float) -> DMD:
    return DMD(denoiser(), teacher(), matching(), num_pairs=20, pair_steps=1, **options)


def test_contracts() -> None:
    # The loss of matching does not fall, as the second network follows the student.
    def make() -> DMD:
        objectives = Objectives(matching(), {"matching": 0.01})
        return DMD(denoiser(), teacher(), objectives, num_pairs=20, pair_steps=1)

    check_scheme(make, batch)


def test_loss_and_gradient_are_those_of_distribution_matching() -> None:
    it = prepared(scheme(regression=0.0))
    with torch.no_grad():
        for parameter in it.fake.parameters():
            parameter.mul_(1.1)
    data = it.before_step(clocked())
    sample = generate(it, data)
    real = it.teacher_denoised(sample.noisy, sample.time, sample.label)
    fake = it.run_other(it.fake, sample.noisy, sample.time, sample.label)["denoised"]
    expected = distribution_matching_loss(sample.clean, real, fake.detach()).mean()
    loss = it.compute_losses(data).losses["matching"]
    assert torch.allclose(loss, expected)
    parameters = list(it.student.parameters())
    pairs = zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    )
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in pairs)


def test_the_regression_is_the_error_of_recorded_pairs() -> None:
    it = prepared(scheme(regression=0.5))
    data = it.before_step(clocked())
    pair = it.pairs.draw(data)
    noisy = pair.noise * float(it.schedule.sigma(torch.tensor(1.0)))
    error = it.run_student(noisy, torch.ones(16), pair.label)["denoised"] - pair.image
    loss = it.compute_losses(data).losses["regression"]
    assert torch.allclose(loss, 0.5 * error.square().mean(), rtol=1e-5)


def test_the_second_network_starts_as_the_teacher_and_learns_generated_images() -> None:
    it = prepared(scheme(fake_updates=2))
    data = it.before_step(clocked())
    for one, other in zip(it.fake.parameters(), it.teacher.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad
    updates = list(it.step(data))
    assert [update.learner for update in updates] == ["student", "fake", "fake"]
    sample = generate(it, data, 1)
    outputs = it.run_other(it.fake, sample.noisy, sample.time, sample.label)
    kind = it.teacher_denoiser.parameterisation
    coefficients = it.schedule.coefficients(sample.time, sample.noisy)
    error = outputs["prediction"] - kind.target(sample.clean, sample.noise, *coefficients)
    # The weight output is the error of the network output.
    assert torch.allclose(updates[1].losses["fake"], error.square().mean(), rtol=1e-4)
    assert not torch.equal(updates[1].losses["fake"], updates[2].losses["fake"])
