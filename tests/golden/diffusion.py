"""Adapters for the distillation of diffusion models."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from instil.functional.diffusion.distribution_matching import (
    distribution_matching_gradient,
    distribution_matching_loss,
)
from instil.functional.diffusion.loss_weights import loss_weight
from instil.functional.diffusion.parameterisations import (
    ConsistencyPrediction,
    EDMPrediction,
    parameterisation,
)
from instil.functional.diffusion.schedules import KarrasSchedule
from instil.functional.diffusion.steps import ddim_clean, ddim_step, guided
from instil.functional.errors import squared_error
from instil.generation.diffusion_sampler import solve
from instil.objectives.logits.denoised_matching import denoised_matching_loss
from tests.golden.cases import Case
from tests.golden.logits import Answer

Network = Callable[..., Tensor]
WEIGHTS = {"karras": "edm", "truncated-snr": "truncated_snr", "uniform": "one"}


def over_pixels(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def stand_in(case: Case, role: str) -> Network:
    """Return the network of the note: ``w x + u t / 1000 + c + v tanh(x)`` and conditions."""
    weights = case.params(f"{role}.")

    def network(x: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        output = weights["w"] * x + weights["u"] * over_pixels(time) / 1000 + weights["c"]
        output = output + weights["v"] * torch.tanh(x)
        for name, condition in zip("eg", conditions, strict=False):
            output = output + weights[name] * over_pixels(condition.mean(1))
        return output

    return network


def karras_denoiser(case: Case, role: str, boundary: bool) -> Network:
    """Return the clean images of a network of openai/consistency_models."""
    network, sigma_data = stand_in(case, role), case.option("sigma_data")
    kind = EDMPrediction(sigma_data)
    if boundary:
        kind = ConsistencyPrediction(sigma_data, case.option("sigma_min"))

    def denoise(noisy: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        coefficients = karras(case).coefficients(sigma, noisy)
        time = karras(case).network_time(sigma).expand(len(noisy))
        output = network(kind.scale_input(noisy, *coefficients), time)
        return kind.denoised(output, noisy, *coefficients)

    return denoise


def karras(case: Case) -> KarrasSchedule:
    return KarrasSchedule(*(case.option(name) for name in ("sigma_min", "sigma_max", "rho")))


def times(case: Case, steps: int) -> list[Tensor]:
    """Return the times at the index of each sample, half a step later and a step later."""
    return [karras(case).time_at(1 - (case["indices"] + n) / steps) for n in (0, 0.5, 1)]


def weight(case: Case, sigma: Tensor) -> Tensor:
    name = WEIGHTS[case.option("weight_schedule")]
    return loss_weight(name, torch.ones_like(sigma), sigma, EDMPrediction())


def consistency(case: Case) -> Answer:
    now, _, later = times(case, case.option("num_scales") - 1)
    noisy = karras(case).add_noise(case["x_start"], case["noise"], now)
    if case.method == "consistency_training":
        reached = karras(case).add_noise(case["x_start"], case["noise"], later)
    else:
        # The solver of the package has one time for all samples.
        teacher = karras_denoiser(case, "teacher", False)
        reached = torch.cat(
            [
                solve(teacher, karras(case), noisy[i : i + 1], grid, "heun")
                for i, grid in enumerate(torch.stack([now, later], 1))
            ]
        )
    prediction = karras_denoiser(case, "student", True)(noisy, now)
    target = karras_denoiser(case, "target", True)(reached, later).detach()
    norm = case.option("loss_norm")
    values = denoised_matching_loss(prediction, target, weight(case, now), norm, reduction="none")
    return values.mean(), {"loss_per_sample": values}


def progressive(case: Case) -> Answer:
    if case.option("loss_norm") != "l2":
        raise NotImplementedError(f"loss_norm: {case.option('loss_norm')}")
    now, middle, later = times(case, case.option("num_scales"))
    teacher = karras_denoiser(case, "teacher", False)
    noisy = karras(case).add_noise(case["x_start"], case["noise"], now)
    first, second, third = (karras(case).coefficients(time, noisy) for time in (now, middle, later))
    reached = ddim_step(noisy, teacher(noisy, now), first, second)
    reached = ddim_step(reached, teacher(reached, middle), second, third)
    target = ddim_clean(noisy, reached, first, third)
    prediction = karras_denoiser(case, "student", False)(noisy, now)
    values = weight(case, now) * squared_error(prediction, target)
    return values.mean(), {"loss_per_sample": values}


def dmd(case: Case) -> Answer:
    case.ignore("num_train_timesteps")
    samples, sigma = case["latents"], case["karras_sigmas"][case["timesteps"]]
    noisy = KarrasSchedule().add_noise(samples.detach(), case["noise"], sigma)
    fake = stand_in(case, "fake")(noisy, sigma)
    if "dm_gradient" not in case:
        factor = loss_weight("edm", torch.ones_like(sigma), sigma, EDMPrediction())
        return (factor * squared_error(fake, samples.detach())).mean(), {}
    real = stand_in(case, "real")(noisy, sigma)
    loss = distribution_matching_loss(samples, real, fake).mean()
    return loss, {"dm_gradient": distribution_matching_gradient(samples, real, fake)}


def lcm(case: Case) -> Answer:
    skip = case.option("num_train_timesteps") // case.option("num_ddim_timesteps")
    start = (case["index"] + 1) * skip - 1
    # The step before the first of the solver ends at time 0 of the table.
    later = (start - skip).clamp_min(0)
    lowest, highest = case.option("w_min"), case.option("w_max")
    scale = lowest + (highest - lowest) * case["guidance_uniform"]
    embedded = guidance_embedding(scale, case.option("time_cond_dim"))
    kind = parameterisation({"epsilon": "eps", "v_prediction": "v"}[case.option("prediction_type")])

    def coefficients(time: Tensor) -> tuple[Tensor, Tensor]:
        share = over_pixels(case["alphas_cumprod"][time])
        return share.sqrt(), (1 - share).sqrt()

    def consistent(role: str, x: Tensor, time: Tensor) -> Tensor:
        output = stand_in(case, role)(x, time.double(), case["prompt"], embedded)
        clean = kind.denoised(output, x, *coefficients(time))
        scaled, deviation = (
            over_pixels(time) * case.option("timestep_scaling"),
            case.option("sigma_data"),
        )
        total = scaled.square() + deviation**2
        return deviation**2 / total * x + scaled / total.sqrt() * clean

    alpha, sigma = coefficients(start)
    noisy = alpha * case["latents"] + sigma * case["noise"]
    outputs = [
        stand_in(case, "teacher")(noisy, start.double(), prompt)
        for prompt in (case["prompt"], torch.zeros_like(case["prompt"]))
    ]
    clean = guided(*(kind.denoised(output, noisy, alpha, sigma) for output in outputs), scale)
    reached = ddim_step(noisy, clean, (alpha, sigma), coefficients(later))
    target = consistent("target", reached, later).detach()
    prediction = consistent("student", noisy, start)
    distance = "entry_huber" if case.option("loss_type") == "huber" else "l2"
    width = case.option("huber_c")
    loss = denoised_matching_loss(prediction, target, None, distance, width)
    return loss, {"target_prediction": target, "model_prediction": prediction}


def guidance_embedding(scale: Tensor, size: int) -> Tensor:
    """Return the sines and cosines that the student of the case reads."""
    exponents = torch.arange(size // 2, dtype=scale.dtype) / (size // 2 - 1)
    angles = 1000 * scale[:, None] * (-math.log(10000.0) * exponents).exp()
    return torch.cat([angles.sin(), angles.cos()], 1)


ADAPTERS = {
    "consistency_distillation": consistency,
    "consistency_training": consistency,
    "progressive_distillation": progressive,
    "dmd": dmd,
    "lcm": lcm,
}
