from __future__ import annotations

from functools import partial

import pytest
import torch

from instil.core import Batch
from instil.functional.diffusion.steps import solver_step
from instil.functional.diffusion.times import random_interval
from instil.schemes.diffusion.lcm import LCM
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher


def test_contracts() -> None:
    check_scheme(lambda: LCM(denoiser(), teacher(), matching(), num_times=4), batch)


def test_teacher_student_and_target_have_one_guidance_weight() -> None:
    student = denoiser(scalars=("guidance",), guidance=2.0)
    it = LCM(student, teacher(), matching(), lowest=1.0, highest=3.0, num_times=4, decay=0.0)
    prepared(it)
    seen: list[Batch] = []
    it.student.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    _, target = it.forward_both(clocked())
    weight = seen[0]["guidance"]
    assert torch.equal(weight, seen[1]["guidance"])
    assert ((weight >= 1) & (weight < 3)).all()
    start, end = random_interval(clocked(), it.schedule, 4)
    sample = it.draw(clocked())
    noisy = it.schedule.add_noise(sample.clean, sample.noise, start)
    denoise = partial(it.teacher_denoised, label=sample.label, guidance=weight)
    reached = solver_step(denoise, it.schedule, noisy, start, end)
    inner = end > 0
    assert torch.allclose(seen[1]["noisy"], reached, atol=1e-6)
    predicted = it.run_student(
        reached[inner], end[inner], sample.label[inner], guidance=weight[inner]
    )
    assert torch.allclose(target["denoised"][inner], predicted["denoised"], atol=1e-5)


def test_several_weights_need_a_student_that_reads_them() -> None:
    with pytest.raises(ValueError, match=r"scheme.highest: the student does not read"):
        LCM(denoiser(), teacher(), matching(), lowest=1.0, highest=3.0)
    with pytest.raises(ValueError, match=r"student.options.guidance: .* Expected 0, got 1"):
        LCM(denoiser(guidance=1.0), teacher(), matching())
    student = denoiser(scalars=("guidance",), guidance=0.5)
    with pytest.raises(ValueError, match=r"Expected a weight from 1 to 3, got 0.5. Set guidance"):
        LCM(student, teacher(), matching(), lowest=1.0, highest=3.0)
