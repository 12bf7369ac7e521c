from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call, translate
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.taps import Net
from instil.teachers.frozen import Frozen


class Small(nn.Module):
    """Network whose prediction is a number per class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else label.view(-1, 1, 1, 1)
        return self.weight * noisy + shift


def net(**options: Any) -> Net:
    return Net(Denoiser(Small(), **options), denoiser_call)


def test_the_teacher_reads_images_of_its_own_schedule() -> None:
    student = net(parameterisation="v", schedule="flow")
    teacher = net(parameterisation="x0", schedule="karras")
    scheme = DiffusionScheme(student, Frozen(teacher), {})
    noisy, time = torch.randn(3, 1, 2, 2), torch.tensor([0.2, 0.5, 0.8])
    # x / alpha has noise of the standard deviation sigma / alpha.
    expected = noisy / (1 - time).view(-1, 1, 1, 1)
    denoised = scheme.teacher_denoised(noisy, time)
    assert torch.allclose(denoised, expected)
    assert not denoised.requires_grad
    ratio = translate(noisy, time, scheme.student_denoiser, scheme.teacher_denoiser)[1]
    assert torch.allclose(ratio, time / (1 - time))
    same = translate(noisy, time, scheme.student_denoiser, scheme.student_denoiser)
    assert same[0] is noisy
    assert same[1] is time


def test_the_teacher_is_guided_and_differentiable() -> None:
    options = {"parameterisation": "x0", "num_classes": 3}
    scheme = DiffusionScheme(net(**options), Frozen(net(**options)), {})
    noisy = torch.zeros(2, 1, 2, 2, requires_grad=True)
    label = torch.tensor([0, 1])
    result = scheme.teacher_denoised(noisy, torch.tensor([0.2, 0.3]), label, 1.0, grad=True)
    assert result[:, 0, 0, 0].tolist() == [-3.0, -1.0]
    (gradient,) = torch.autograd.grad(result.sum(), noisy)
    assert torch.equal(gradient, torch.ones_like(noisy))


def test_the_student_runs_through_its_net_with_taps() -> None:
    denoiser = Denoiser(Small(), "x0")
    student = Net(denoiser, denoiser_call, {"features": ["network"]})
    scheme = DiffusionScheme(student, None, {})
    image = torch.rand(2, 1, 2, 2)
    sample = scheme.draw({"image": image, "index": torch.arange(2)})
    outputs = scheme.run_student(sample.noisy, sample.time, sample.label)
    assert torch.equal(outputs["features"][0], outputs["denoised"])
    with pytest.raises(ValueError, match="teacher: DiffusionScheme needs one"):
        scheme.teacher_denoised(sample.noisy, sample.time)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a diffusion model"):
        DiffusionScheme(nn.Linear(2, 2), None, {})
    with pytest.raises(ValueError, match="is not a diffusion model"):
        DiffusionScheme(net(), Frozen(nn.Linear(2, 2)), {})
