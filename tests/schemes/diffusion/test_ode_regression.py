from __future__ import annotations

import pytest
import torch

from instil.generation.diffusion_sampler import sample_images
from instil.schemes.diffusion.ode_regression import OdeRegression
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher


def scheme(**options: int) -> OdeRegression:
    return OdeRegression(denoiser(), teacher(), matching(), **{"num_pairs": 20, **options})


def test_contracts() -> None:
    check_scheme(lambda: scheme(pair_steps=2), batch)


def test_a_pair_is_noise_and_the_image_of_the_sampler() -> None:
    it = prepared(scheme(pair_steps=3))
    it.before_step(clocked())
    assert it.pairs.label.unique().tolist() == [0, 1, 2]
    expected = sample_images(it.teacher_denoiser, it.pairs.noise, it.pairs.label, steps=3)
    assert torch.allclose(it.pairs.image, expected, atol=1e-5)
    assert it.pairs.noise.std() == pytest.approx(1, abs=0.1)


def test_the_student_maps_noise_to_the_image_in_one_step() -> None:
    it = prepared(scheme(pair_steps=2))
    it.before_step(clocked())
    pair = it.pairs.draw(clocked())
    student, target = it.forward_both(clocked())
    assert torch.equal(target["denoised"], pair.image)
    assert it.student_denoiser.steps == 1
    generated = sample_images(it.student_denoiser, pair.noise, pair.label)
    assert torch.allclose(student["denoised"], generated, atol=1e-5)


def test_the_pairs_are_sampled_once_and_depend_on_the_seed_only() -> None:
    it, other, third = (prepared(scheme(pair_steps=1)) for _ in range(3))
    it.before_step(clocked())
    other.before_step(clocked(step=7, progress=0.0))
    third.before_step(clocked() | {"seed": torch.tensor(1)})
    assert torch.equal(it.pairs.image, other.pairs.image)
    assert not torch.equal(it.pairs.image, third.pairs.image)
    before = it.pairs.image.clone()
    it.before_step(clocked() | {"seed": torch.tensor(1)})
    assert torch.equal(it.pairs.image, before)


def test_a_random_solver_makes_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"scheme.pair_solver: the solver consistency adds noise"):
        OdeRegression(denoiser(), teacher(), matching(), pair_solver="consistency")
