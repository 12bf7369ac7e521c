from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.export.student import load_student, save_student
from instil.functional.diffusion.parameterisations import PARAMETERISATIONS
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call, denoiser_of, reconfigure_copy
from instil.modules.noisy_sample import to_image_range, to_model_range
from instil.taps import Net
from instil.teachers.frozen import Frozen


class Linear(nn.Module):
    """Network with a weight, a time, a class and a number."""

    scalars = ("guidance",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.times: list[Tensor] = []

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        self.times.append(time)
        shift = 0.0 if guidance is None else guidance.view(-1, 1, 1, 1)
        return self.weight * noisy + label.view(-1, 1, 1, 1) + shift


class Plain(nn.Module):
    """Unconditional network."""

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return 0.5 * noisy


def batch(size: int = 6) -> dict[str, Any]:
    image = torch.rand(size, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    label = torch.arange(size) % 3
    return {"image": image, "label": label, "index": torch.arange(size), "seed": 1, "step": 2}


def test_noise_depends_on_the_sample_and_not_on_the_batch() -> None:
    denoiser = Denoiser(Linear(), num_classes=3, label_dropout=0.5)
    whole, part = denoiser.draw(batch()), denoiser.draw(first(4))
    assert torch.equal(whole.noisy[:4], part.noisy)
    assert torch.equal(whole.time[:4], part.time)
    assert whole.label is not None
    assert part.label is not None
    assert torch.equal(whole.label[:4], part.label)
    assert (whole.label == -100).any()
    assert (whole.label >= 0).any()
    assert torch.equal(whole.clean, 2 * batch()["image"] - 1)
    assert not torch.equal(whole.noise, denoiser.draw(batch() | {"step": 3}).noise)
    assert not torch.equal(whole.noise, denoiser.draw(batch(), "other").noise)


def first(size: int) -> dict[str, Any]:
    return {k: v[:size] if isinstance(v, Tensor) else v for k, v in batch().items()}


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_the_call_returns_the_denoised_image(name: str) -> None:
    denoiser = Denoiser(Plain(), name, "cosine")
    outputs = denoiser_call(denoiser, batch())
    alpha, sigma = denoiser.schedule.coefficients(outputs["time"], outputs["noisy"])
    part = denoiser.parameterisation
    prediction = 0.5 * part.scale_input(outputs["noisy"], alpha, sigma)
    assert torch.allclose(outputs["prediction"], prediction)
    expected = part.denoised(prediction, outputs["noisy"], alpha, sigma)
    assert torch.allclose(outputs["denoised"], expected)
    again = denoiser_call(denoiser, {"noisy": outputs["noisy"], "time": outputs["time"]})
    assert set(again) == {"denoised", "prediction"}
    assert torch.equal(again["denoised"], outputs["denoised"])


def test_a_missing_label_is_the_class_after_the_last() -> None:
    denoiser = Denoiser(Linear(), "x0", num_classes=3)
    noisy, time = torch.zeros(2, 1, 2, 2), torch.tensor(0.5)
    assert denoiser.denoise(noisy, time)[0].unique() == 3
    label = torch.tensor([1, -100])
    assert denoiser.denoise(noisy, time, label)[:, 0, 0, 0].tolist() == [1, 3]


def test_a_network_that_reads_the_guidance_runs_once() -> None:
    network = Linear()
    denoiser = Denoiser(network, "x0", num_classes=3)
    noisy, time, label = torch.zeros(2, 1, 2, 2), torch.tensor(0.5), torch.tensor([1, 2])
    result = denoiser.denoise(noisy, time, label, guidance=torch.tensor([5.0, 7.0]))
    assert result[:, 0, 0, 0].tolist() == [6, 9]
    assert len(network.times) == 1


def test_the_time_of_the_network_follows_the_parameterisation() -> None:
    network = Linear()
    time = torch.tensor([0.25, 0.5])
    for name, schedule, expected in (
        ("v", "flow", 1000 * time),
        ("eps", "linear", 1000 * time - 1),
        ("edm", "karras", 250 * time.log()),
        ("edm", "flow", 250 * (time / (1 - time)).log()),
    ):
        denoiser = Denoiser(network, name, schedule, num_classes=3)
        denoiser(torch.zeros(2, 1, 2, 2), time)
        assert torch.allclose(network.times[-1], expected)


def test_a_net_and_a_teacher_have_their_denoiser() -> None:
    denoiser = Denoiser(Plain())
    net = Net(denoiser, denoiser_call)
    assert denoiser_of(net) is denoiser
    assert denoiser_of(Frozen(net)) is denoiser
    assert torch.equal(Frozen(net)(batch())["denoised"], net(batch())["denoised"])
    with pytest.raises(ValueError, match=r"a Linear is not a diffusion model.*networks:denoiser"):
        denoiser_of(Net(nn.Linear(1, 1)))


def test_options_of_a_built_denoiser_can_change() -> None:
    denoiser = Denoiser(Plain(), "edm", "karras")
    denoiser.reconfigure(parameterisation="consistency", steps=1, solver="consistency")
    assert (denoiser.steps, denoiser.solver) == (1, "consistency")
    assert denoiser.parameterisation.name == "consistency"
    assert denoiser.schedule.name == "karras"
    reconfigure_copy(denoiser, {"parameterisation": "edm", "schedule": "flow"})
    with pytest.raises(ValueError, match=r"options.parameterisation: .* trained for edm"):
        reconfigure_copy(denoiser, {"parameterisation": "v"})
    denoiser.reconfigure(parameterisation="edm")
    with pytest.raises(ValueError, match=r"options.width: a built denoiser has no such option"):
        denoiser.reconfigure(width=3)


def test_a_file_keeps_the_sampler_that_a_scheme_has_set(tmp_path: Path) -> None:
    student = Denoiser(Plain(), steps=32)
    student.reconfigure(steps=2, solver="consistency")
    path = save_student(Net(student, denoiser_call), tmp_path / "student.safetensors", {"a": 1})
    loaded = Denoiser(Plain(), steps=32)
    assert load_student(loaded, path) == {"a": 1}
    assert (loaded.steps, loaded.solver) == (2, "consistency")


def test_image_ranges() -> None:
    image = torch.tensor([0.0, 0.25, 1.0])
    assert to_model_range(image).tolist() == [-1, -0.5, 1]
    assert torch.equal(to_image_range(to_model_range(image)), image)
    assert to_image_range(torch.tensor([3.0, -2.0])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameterisation": "noise"}, "parameterisation: unknown type 'noise'"),
        ({"schedule": "sigmoid"}, "schedule: unknown type 'sigmoid'"),
        ({"times": "normal"}, "times: unknown type 'normal'"),
        ({"steps": 0}, "steps: too few sampling steps. Expected at least 1, got 0"),
        ({"solver": "rk4"}, "solver: unknown solver 'rk4'"),
        ({"solver": "ddmi"}, "solver: unknown solver 'ddmi'. Did you mean ddim"),
        ({"guidance": 1.0}, "guidance: the model reads no label"),
        ({"label_dropout": 1.0}, "label_dropout: not a share"),
        ({"parameterisation": "eps", "schedule": "flow"}, "eps is undefined at the noise end"),
        ({"num_classes": 3}, "conditional: Plain reads no label"),
    ],
)
def test_wrong_options_have_a_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Denoiser(Plain(), **options)


def test_guidance_and_numbers_need_a_network_that_reads_them() -> None:
    denoiser = Denoiser(Plain())
    noisy, time = torch.zeros(2, 1, 2, 2), torch.tensor(0.5)
    with pytest.raises(ValueError, match="guidance: the model reads no label"):
        denoiser.denoise(noisy, time, guidance=2.0)
    with pytest.raises(ValueError, match="end_time: the network does not read it"):
        denoiser(noisy, time, end_time=time)
