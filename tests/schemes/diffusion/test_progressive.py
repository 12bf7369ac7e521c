from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from instil.functional.diffusion.times import random_interval
from instil.schemes.diffusion.progressive import Progressive
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, constant, denoiser, matching, prepared, teacher


def test_contracts() -> None:
    check_scheme(lambda: Progressive(denoiser(), teacher(), matching(), steps=4), batch)


@pytest.mark.parametrize("schedule", ["cosine", "flow", "karras"])
def test_the_target_of_a_constant_teacher_is_its_image(schedule: str) -> None:
    student = constant(0.1, schedule=schedule)
    scheme = Progressive(student, Frozen(constant(0.5, schedule=schedule)), matching(), steps=3)
    _, target = scheme.forward_both(clocked())
    assert torch.allclose(target["denoised"], torch.tensor(0.5), atol=1e-4)


def test_target_and_weight_by_numpy() -> None:
    """A teacher that halves the noisy image, on the cosine schedule."""
    scheme = Progressive(denoiser(parameterisation="x0"), teacher(), matching(), steps=2)
    scheme.teacher_denoised = lambda noisy, *_, **__: 0.5 * noisy  # type: ignore[method-assign]
    sample = scheme.draw(clocked())
    start, end = random_interval(clocked(), scheme.schedule, 2)
    assert {round(float(time), 6) for time in start} == {1.0, 0.5}
    _, target = scheme.forward_both(clocked())
    angle = math.atan(math.exp(10))
    clean, noise = sample.clean.double().numpy(), sample.noise.double().numpy()
    for i in range(len(clean)):
        first, last = float(start[i]), float(end[i])
        times = [angle * time for time in (first, (first + last) / 2, last)]
        noisy = z = np.cos(times[0]) * clean[i] + np.sin(times[0]) * noise[i]
        for now, after in itertools.pairwise(times):
            estimate = (z - np.cos(now) * 0.5 * z) / np.sin(now)
            z = np.cos(after) * 0.5 * z + np.sin(after) * estimate
        ratio = np.sin(times[2]) / np.sin(times[0])
        expected = (z - ratio * noisy) / (np.cos(times[2]) - ratio * np.cos(times[0]))
        assert np.allclose(target["denoised"][i].numpy(), expected, atol=1e-5)
        weight = max(1 / math.tan(times[0]) ** 2, 1)
        assert float(target["loss_weight"][i]) == pytest.approx(weight, rel=1e-4)


def test_guidance_is_part_of_the_target_and_not_applied_again() -> None:
    it = Progressive(denoiser(), teacher(), matching(), steps=4, guidance=2.0)
    plain = Progressive(denoiser(), teacher(), matching(), steps=4)
    targets = [scheme.forward_both(clocked())[1]["denoised"] for scheme in (it, plain)]
    assert not torch.allclose(*targets, atol=1e-3)
    with pytest.raises(ValueError, match=r"student.options.guidance: .* Expected 0, got 1"):
        Progressive(denoiser(guidance=1.0), teacher(), matching(), steps=4, guidance=2.0)


def test_students_that_read_the_guidance_learn_several_weights() -> None:
    options: dict[str, Any] = {"scalars": ("guidance",), "guidance": 2.0}
    student = denoiser(**options)
    it = Progressive(student, teacher(**options), matching(), 4, guidance=1.0, highest=3.0)
    prepared(it)
    seen: list[torch.Tensor] = []
    for net in (it.student, it.teacher_denoiser):
        net.register_forward_pre_hook(_record(seen), with_kwargs=True)
    it.forward_both(clocked())
    # Two calls of the teacher, and one of the student.
    assert len(seen) == 3
    assert ((seen[0] >= 1) & (seen[0] < 3)).all()
    assert seen[0].unique().numel() > 10
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    with pytest.raises(ValueError, match=r"scheme.highest: the student does not read"):
        Progressive(denoiser(), teacher(), matching(), steps=4, highest=2.0)


def _record(seen: list[torch.Tensor]) -> Callable[..., None]:
    """Return a hook that records the weights which a network or its denoiser reads."""

    def hook(_: object, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.append((options or inputs[0])["guidance"])

    return hook


def test_the_loss_is_the_weighted_squared_error() -> None:
    scheme = prepared(Progressive(denoiser(), teacher(), matching(), steps=4))
    student, target = scheme.forward_both(clocked())
    error = (student["denoised"] - target["denoised"]).square().flatten(1).mean(1)
    expected = (target["loss_weight"] * error).mean()
    update = next(iter(scheme.step(clocked())))
    assert torch.allclose(update.losses["matching"], expected)


def test_the_sampler_of_the_student_has_the_steps_of_the_scheme() -> None:
    student = denoiser(steps=32)
    assert Progressive(student, teacher(), matching()).steps == 32
    Progressive(student, teacher(), matching(), steps=4)
    assert student.model.steps == 4
