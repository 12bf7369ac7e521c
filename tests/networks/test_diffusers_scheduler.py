"""Diffusion models whose parts a scheduler of diffusers defines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil.functional.diffusion.schedules import noise_schedule
from instil.generation.diffusion_sampler import sample_images
from instil.modules.denoiser import Denoiser
from instil.networks import factory

FACTS: dict[str, Any] = {"channels": 1, "size": 8, "classes": 0}
UNET = "diffusers:UNet2DModel"
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
STEPS = 5


def save_pipeline(folder: Path, name: str, **config: Any) -> tuple[Any, Any]:
    """Write a pipeline with a network of random weights; return the network and the scheduler."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**SMALL).eval()
    scheduler = getattr(diffusers, name)(**config)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
    return network, scheduler


def build(folder: Path, **options: Any) -> Denoiser:
    path = {"path": "pipeline", "subfolder": "unet"}
    options = {"network": UNET, "network_options": path, "pretrained": True} | options
    options["pretrained"] = "path" in options["network_options"]
    model = factory.build("denoiser", options, base=folder, **FACTS)
    assert isinstance(model, Denoiser)
    return model.eval()


def write_config(folder: Path, **config: Any) -> None:
    (folder / "pipeline" / "scheduler").mkdir(parents=True, exist_ok=True)
    file = folder / "pipeline" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DDIMScheduler"} | config), encoding="utf-8")


def sampled(network: Any, scheduler: Any, noise: torch.Tensor, start: float) -> torch.Tensor:
    """Images of the sampler of diffusers."""
    if "FlowMatch" in type(scheduler).__name__:
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS))
    else:
        scheduler.set_timesteps(STEPS)
    images = noise * getattr(scheduler, "init_noise_sigma", 1.0) * start
    for time in scheduler.timesteps:
        scaled = images
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(images, time)
        images = scheduler.step(network(scaled, time).sample, time, images).prev_sample
    return images


@pytest.mark.parametrize(
    ("name", "config", "parts"),
    [
        ("DDIMScheduler", {}, ("eps", "betas", "ddim")),
        ("DDIMScheduler", {"beta_schedule": "scaled_linear"}, ("eps", "betas", "ddim")),
        (
            "DDIMScheduler",
            {"prediction_type": "sample", "num_train_timesteps": 500},
            ("x0", "betas", "ddim"),
        ),
        (
            "DDIMScheduler",
            {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
            ("v", "betas", "ddim"),
        ),
        ("EulerDiscreteScheduler", {"beta_end": 0.012}, ("eps", "betas", "ddim")),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, ("v", "betas", "ddim")),
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "v_prediction"},
            ("v", "betas", "dpm_solver"),
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, ("flow", "flow", "ddim")),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@torch.no_grad()
def test_samples_are_those_of_diffusers(
    name: str, config: dict[str, Any], parts: tuple[str, ...], tmp_path: Path
) -> None:
    trailing = {} if name.startswith("Flow") else {"timestep_spacing": "trailing"}
    clipped = {"clip_sample": False} if name == "DDIMScheduler" else {}
    network, scheduler = save_pipeline(tmp_path / "pipeline", name, **trailing, **clipped, **config)
    model = build(tmp_path)
    kinds = (model.parameterisation.name, model.schedule.name, model.solver)
    assert kinds == parts
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    # DDIM and DPM-Solver of diffusers start from noise of the deviation 1.
    is_scaled = name in ("DDIMScheduler", "DPMSolverMultistepScheduler")
    start = float(model.schedule.sigma(torch.tensor(1.0))) if is_scaled else 1.0
    expected = sampled(network, scheduler, noise, start)
    images = sample_images(model, noise, steps=STEPS)
    assert (images - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_ddpm_has_the_noise_of_its_betas(tmp_path: Path) -> None:
    _, scheduler = save_pipeline(
        tmp_path / "pipeline", "DDPMScheduler", beta_schedule="sigmoid", num_train_timesteps=100
    )
    model = build(tmp_path)
    time = torch.arange(1, 101, dtype=torch.float64) / 100
    variance = model.schedule.alpha(time).square()
    torch.testing.assert_close(variance.float(), scheduler.alphas_cumprod)
    torch.testing.assert_close(model.network_time(time), time * 100 - 1)


def test_options_of_the_recipe_that_agree_are_allowed(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "pipeline", "DDPMScheduler")
    model = build(tmp_path, parameterisation="eps", schedule="linear", solver="heun", steps=3)
    assert (model.schedule.name, model.solver, model.steps) == ("linear", "heun", 3)
    model = build(tmp_path, parameterisation="v", schedule="cosine", scheduler="none")
    assert (model.schedule.name, model.parameterisation.name) == ("cosine", "v")


def test_a_student_may_name_the_scheduler_of_its_teacher(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    write_config(tmp_path, prediction_type="v_prediction", beta_schedule="scaled_linear")
    for folder in ("pipeline", "pipeline/scheduler"):
        model = build(tmp_path, network_options=SMALL, scheduler=folder)
        assert model.parameterisation.name == "v"
        assert model.options["schedule"]["shape"] == "scaled_linear"


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            {},
            {"parameterisation": "v"},
            r"^options\.parameterisation: it contradicts .* eps, got v",
        ),
        ({}, {"schedule": "cosine"}, r"^options\.schedule: its noise contradicts .*got cosine"),
        (
            {"num_train_timesteps": 500},
            {"schedule": "linear"},
            r"^options\.schedule: its noise contradicts",
        ),
        (
            {"_class_name": "PNDMScheduler"},
            {},
            r"^options\.scheduler: .*class\. Expected one of DDPMScheduler.*got PNDMScheduler",
        ),
        ({"_class_name": None}, {}, r"unsupported class\..*got None"),
        ({"rescale_betas_zero_snr": True}, {}, r"unsupported rescale_betas_zero_snr"),
        ({"trained_betas": [0.1]}, {}, r"unsupported trained_betas"),
        ({"prediction_type": "score"}, {}, r"unsupported prediction_type\. .*epsilon.*got score"),
        ({"beta_schedule": "laplace"}, {}, r"unsupported beta_schedule"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            {},
            r"unsupported use_dynamic_shifting",
        ),
        ({}, {"scheduler": "elsewhere"}, r"^options\.scheduler: no configuration"),
    ],
)
def test_contradictions_and_unsupported_schedulers_raise(
    config: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    write_config(tmp_path, **config)
    options = {"scheduler": "pipeline", "network_options": SMALL} | options
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **options)


def test_a_file_that_is_not_json_raises(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    write_config(tmp_path)
    (tmp_path / "pipeline" / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"^options\.scheduler: .* is not JSON"):
        build(tmp_path, scheduler="pipeline", network_options=SMALL)


def test_the_fingerprint_of_a_model_has_its_scheduler_and_weights(tmp_path: Path) -> None:
    save_pipeline(tmp_path / "pipeline", "DDPMScheduler")
    options = {"network": UNET, "network_options": {"path": "pipeline", "subfolder": "unet"}}
    codes = [factory.code_of("denoiser", tmp_path, options)]
    write_config(tmp_path, beta_schedule="scaled_linear")
    codes.append(factory.code_of("denoiser", tmp_path, options))
    weights = next((tmp_path / "pipeline" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    codes.append(factory.code_of("denoiser", tmp_path, options))
    assert len(set(codes)) == 3


def test_a_shifted_flow_has_more_times_of_much_noise() -> None:
    times = noise_schedule({"type": "flow", "shift": 3.0}).grid(4)
    expected = [3 * share / (1 + 2 * share) for share in (1, 0.75, 0.5, 0.25, 0)]
    assert times.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"^schedule\.shift"):
        noise_schedule({"type": "flow", "shift": 0})
    with pytest.raises(ValueError, match=r"^schedule\.shape: unknown shape 'linea'"):
        noise_schedule({"type": "betas", "shape": "linea"})
    with pytest.raises(ValueError, match=r"schedule\.last_beta"):
        noise_schedule({"type": "betas", "last_beta": 1.0})
