from __future__ import annotations

import pytest
import torch

from instil.schemes.diffusion.guidance_distillation import GuidanceDistillation
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, teacher


def scheme(**options: float) -> GuidanceDistillation:
    student = denoiser(scalars=("guidance",), guidance=1.0)
    return GuidanceDistillation(student, teacher(), matching(), **options)


def test_contracts() -> None:
    check_scheme(scheme, batch)


def test_the_target_is_guided_by_the_weight_that_the_student_reads() -> None:
    it = scheme(lowest=1.0, highest=3.0)
    weights = []
    it.student.register_forward_hook(
        lambda _, inputs, output: weights.append(inputs[0]["guidance"])
    )
    _, target = it.forward_both(clocked())
    weight = weights[0].view(-1, 1, 1, 1)
    assert ((weight >= 1) & (weight < 3)).all()
    assert weight.unique().numel() > 10
    sample = it.draw(clocked())
    conditional = it.teacher_denoised(sample.noisy, sample.time, clocked()["label"], 0.0)
    unconditional = it.teacher_denoised(sample.noisy, sample.time, None, 0.0)
    expected = (1 + weight) * conditional - weight * unconditional
    assert torch.allclose(target["denoised"], expected, atol=1e-5)


def test_one_weight_needs_no_input() -> None:
    it = GuidanceDistillation(denoiser(), teacher(), matching(), lowest=2.0, highest=2.0)
    assert torch.isfinite(it.forward_both(clocked())[1]["denoised"]).all()
    with pytest.raises(ValueError, match=r"scheme.highest: the student does not read"):
        GuidanceDistillation(denoiser(), teacher(), matching(), lowest=1.0, highest=2.0)


def test_wrong_ranges_and_teachers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scheme.highest: less than the smallest weight"):
        scheme(lowest=2.0, highest=1.0)
    with pytest.raises(ValueError, match=r"guidance: the model reads no label"):
        GuidanceDistillation(denoiser(), teacher(num_classes=0), matching())
