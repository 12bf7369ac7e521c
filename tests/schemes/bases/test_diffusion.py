from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.cards import Schedule
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call, translate
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.diffusion.progressive import Progressive
from instil.taps import Net
from instil.teachers.frozen import Frozen
from tests.parity_diffusion import FLOW, SCHEMES
from tests.schemes.denoisers import batch, clocked, denoiser, matching, teacher

WITHOUT_GUIDANCE = ("consistency_training", "easy_consistency", "region_crops", "prompt_loop")
WITH_PAIRS = ("dmd", "ode_regression", "reflow")
RANGES = ("guidance_distillation", "lcm")


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


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in WITHOUT_GUIDANCE])
def test_networks_that_read_the_guidance_receive_its_weight(name: str) -> None:
    scheme_class = type(SCHEMES[name]())
    scalars = ("guidance", "end_time") if name == "mean_flow" else ("guidance",)
    options: dict[str, Any] = FLOW if name in ("mean_flow", "reflow") else {}
    student = denoiser(scalars=scalars, guidance=2.0, **options)
    pairs = {"num_pairs": 4} if name in WITH_PAIRS else {}
    guidance = {"lowest": 2.0, "highest": 2.0} if name in RANGES else {"guidance": 2.0}
    conditioned = teacher(scalars=("guidance",), **options)
    it = scheme_class(student, conditioned, matching(), **pairs, **guidance)
    it.prepare(batch())
    weights: list[Tensor] = []
    for net in it.modules():
        if isinstance(net, Denoiser):
            net.register_forward_pre_hook(_record(weights), with_kwargs=True)
    prepared_batch = it.before_step(clocked())
    for update in it.step(prepared_batch):
        sum(update.losses.values()).backward()
    assert len(weights) >= 2
    assert all((weight == 2).all() for weight in weights)


def _record(weights: list[Tensor]) -> Callable[..., None]:
    """Return a hook that records the weight which a denoiser reads, NaN for none."""

    def hook(_: object, inputs: object, options: dict[str, Any]) -> None:
        weights.append(options.get("guidance", torch.tensor(torch.nan)))

    return hook


def test_a_teacher_that_ignores_the_weight_is_guided_by_two_calls() -> None:
    conditioned = teacher(scalars=("guidance",))
    scheme = Progressive(denoiser(), conditioned, matching(), steps=4, guidance=1.0)
    sample, label = scheme.draw(batch()), batch()["label"]
    scheme.prepare(batch())
    assert scheme.teacher_is_guided
    once = scheme.teacher_denoised(sample.noisy, sample.time, label, 1.0)
    direct = scheme.run_other(conditioned, sample.noisy, sample.time, label, 1.0)["denoised"]
    assert torch.equal(once, direct)
    with torch.no_grad():
        scheme.teacher_denoiser.network.model.shift.weight[:, 1] = 0
    scheme = Progressive(denoiser(), conditioned, matching(), steps=4, guidance=1.0)
    scheme.prepare(batch())
    assert not scheme.teacher_is_guided
    twice = scheme.teacher_denoised(sample.noisy, sample.time, label, 1.0)
    runs = [scheme.teacher_denoised(sample.noisy, sample.time, c, 0.0) for c in (label, None)]
    assert torch.allclose(twice, 2 * runs[0] - runs[1], atol=1e-5)


def test_the_sampler_of_a_student_reads_a_weight_that_it_learns() -> None:
    student = denoiser(scalars=("guidance",), guidance=1.0)
    with pytest.raises(ValueError, match=r"student.options.guidance: .* Expected 0, got 1"):
        Progressive(student, teacher(), matching(), steps=4)
    Progressive(student, teacher(), matching(), steps=4, guidance=Schedule(0.0, 1.0))


def test_a_teacher_without_classes_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match=r"guidance: the model reads no label"):
        Progressive(denoiser(), teacher(num_classes=0), matching(), steps=4, guidance=1.0)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a diffusion model"):
        DiffusionScheme(nn.Linear(2, 2), None, {})
    with pytest.raises(ValueError, match="is not a diffusion model"):
        DiffusionScheme(net(), Frozen(nn.Linear(2, 2)), {})
