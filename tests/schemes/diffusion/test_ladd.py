from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from instil.schemes.bases.generated_images import generate
from instil.schemes.diffusion.ladd import LADD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, constant, denoiser, matching, prepared, teacher


def scheme(penalty: float = 0.0) -> LADD:
    return LADD(denoiser(), teacher(), matching(), fool=0.5, penalty=penalty)


def test_contracts() -> None:
    check_scheme(lambda: scheme(1.0), batch)


def test_the_critic_reads_the_teacher_with_the_noise_of_the_data() -> None:
    it = prepared(scheme())
    fake = generate(it, clocked(), 1)
    real = it.draw(clocked(), "scheme.matching.1")
    assert torch.equal(fake.time, real.time)
    assert torch.equal(fake.noise, real.noise)

    def score(noisy: torch.Tensor) -> torch.Tensor:
        inputs = {"noisy": noisy, "time": fake.time, "label": fake.label}
        features = it.teacher(inputs)["features"]
        return it.heads[0](features[0]).flatten(1).mean(1)

    expected = F.relu(1 - score(real.noisy)) + F.relu(1 + score(fake.noisy))
    updates = it.step(clocked())
    critic = next(updates)
    assert critic.learner == "critic"
    assert torch.allclose(critic.losses["critic"], expected.mean())


def test_the_penalty_is_half_the_squared_gradient_by_the_features_of_the_data() -> None:
    it = prepared(scheme())
    plain = next(it.step(clocked())).losses["critic"]
    it.penalty = 3.0
    loss = next(it.step(clocked())).losses["critic"]
    real = it.draw(clocked(), "scheme.matching.1")
    inputs = {"noisy": real.noisy, "time": real.time, "label": clocked()["label"]}
    features = it.teacher(inputs)["features"][0].requires_grad_()
    score = it.heads[0](features).flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(score.sum(), features)
    expected = 3 * gradient.square().flatten(1).sum(1).mean() / 2
    assert torch.allclose(loss - plain, expected, rtol=1e-3)
    assert it.sharding_obstacle() == "differentiates the critic twice"


def test_the_student_fools_the_critic_through_the_teacher() -> None:
    it = prepared(scheme())
    _, update = it.step(clocked())
    student, target = it.forward_both(clocked())
    assert torch.allclose(update.losses["fool"], -0.5 * student["score"].mean())
    gradients = torch.autograd.grad(
        update.losses["fool"], list(it.student.parameters()), allow_unused=True
    )
    assert any(value is not None and value.abs().max() > 0 for value in gradients)
    assert not target["denoised"].requires_grad
    sample = generate(it, clocked())
    assert torch.allclose(target["loss_weight"], it.schedule.alpha(sample.time))
    denoised = it.teacher_denoised(sample.noisy, sample.time, clocked()["label"])
    assert torch.allclose(target["denoised"], denoised, atol=1e-5)


def test_a_teacher_without_features_is_refused() -> None:
    it = LADD(denoiser(num_classes=0), Frozen(constant()), matching())
    with pytest.raises(ValueError, match="the critic of ladd reads 'features'"):
        it.prepare(batch())
