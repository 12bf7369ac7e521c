from __future__ import annotations

import pytest
import torch

from instil.schemes.diffusion.on_policy_diffusion import OnPolicyDiffusion
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher


def scheme(**options: float) -> OnPolicyDiffusion:
    return OnPolicyDiffusion(denoiser(), teacher(), matching(), **{"steps": 3, **options})


def test_contracts() -> None:
    check_scheme(scheme, batch)


def test_the_weight_is_that_of_the_divergence_of_two_gaussian_steps() -> None:
    """Posterior of Ho et al. 2020, Eq. 7, on a variance-preserving schedule."""
    it = scheme()
    time, end = torch.tensor([0.9, 0.6, 0.3]).double(), torch.tensor([0.6, 0.5, 0.1]).double()
    share, end_share = it.schedule.alpha(time) ** 2, it.schedule.alpha(end) ** 2
    step = share / end_share
    variance = (1 - end_share) / (1 - share) * (1 - step)
    slope = end_share.sqrt() * (1 - step) / (1 - share)
    assert torch.allclose(it.noise_parts(time, end)[1], variance)
    assert torch.allclose(it.step_weight(time, end), slope**2 / (2 * variance))


def test_images_of_a_random_step_have_the_moments_of_the_posterior() -> None:
    it = scheme()
    time, end = torch.tensor(0.7), torch.tensor(0.4)
    noisy, denoised = torch.full((4000, 1, 1, 1), 0.8), torch.full((4000, 1, 1, 1), 0.3)
    fresh = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0))
    after = it.random_step(noisy, denoised, fresh, time, end).double()
    share, end_share = it.schedule.alpha(time) ** 2, it.schedule.alpha(end) ** 2
    step = share / end_share
    mean = end_share.sqrt() * (1 - step) / (1 - share) * 0.3
    mean = mean + step.sqrt() * (1 - end_share) / (1 - share) * 0.8
    variance = (1 - end_share) / (1 - share) * (1 - step)
    assert float(after.mean()) == pytest.approx(float(mean), abs=0.03)
    assert float(after.var()) == pytest.approx(float(variance), rel=0.06)


def test_the_path_is_sampled_in_evaluation_mode() -> None:
    it = prepared(scheme()).train()
    modes: list[bool] = []
    it.student.register_forward_pre_hook(lambda net, _inputs: modes.append(net.training))
    it.forward_both(clocked())
    assert modes == [False, False, True]


def test_both_networks_read_the_path_of_the_student() -> None:
    it = prepared(scheme(largest_weight=2.0))
    student, target = it.forward_both(clocked())
    label = clocked()["label"]
    for step in range(3):
        index = torch.full((16,), step)
        noisy, time, end_time = it.rollout(clocked(), index, label)
        predicted = it.run_student(noisy, time, label)["denoised"]
        same = (student["denoised"] - predicted).flatten(1).abs().amax(1) < 1e-5
        assert same.any()
        expected = it.teacher_denoised(noisy[same], time[same], label[same])
        assert torch.allclose(target["denoised"][same], expected, atol=1e-5)
        weight = it.step_weight(time, end_time).clamp_max(2.0)
        assert torch.allclose(target["loss_weight"][same], weight[same])
