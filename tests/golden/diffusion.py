"""Adapters for the distillation of diffusion models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.functional.consistency import boundary_scalings, consistency_loss
from instil.functional.distribution_matching import (
    distribution_matching_gradient,
    distribution_matching_loss,
    edm_weight,
)
from instil.functional.guidance import guidance_embedding, guided_prediction
from instil.functional.progressive import (
    per_sample,
    progressive_target,
    truncated_snr,
    weighted_squared_error,
)
from tests.golden.cases import Case
from tests.golden.logits import Answer

Network = Callable[..., Tensor]


def stand_in(case: Case, role: str) -> Network:
    """Return the network of the note: ``w x + u t / 1000 + c + v tanh(x)`` and conditions."""
    weights = case.params(f"{role}.")

    def network(x: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        output = weights["w"] * x + weights["u"] * per_sample(time, x) / 1000 + weights["c"]
        output = output + weights["v"] * torch.tanh(x)
        for name, condition in zip("eg", conditions, strict=False):
            output = output + weights[name] * per_sample(condition.mean(1), x)
        return output

    return network


def karras_denoiser(case: Case, role: str, boundary: bool) -> Network:
    """Return the clean estimate of a network of openai/consistency_models."""
    network, sigma_data = stand_in(case, role), case.option("sigma_data")
    smallest = case.option("sigma_min") if boundary else 0.0

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        total = (sigma.square() + sigma_data**2).sqrt()
        if boundary:
            c_skip, c_out = boundary_scalings(sigma, sigma_data, smallest)
        else:
            c_skip, c_out = (sigma_data / total).square(), sigma * sigma_data / total
        output = network(x / per_sample(total, x), 250 * (sigma + 1e-44).log())
        return per_sample(c_skip, x) * x + per_sample(c_out, x) * output

    return denoise


def karras_sigmas(case: Case, share: Tensor) -> Tensor:
    """Return noise levels at shares of the way from the largest to the smallest."""
    rho = case.option("rho")
    largest, smallest = (case.option(f"sigma_{name}") ** (1 / rho) for name in ("max", "min"))
    return (largest + share * (smallest - largest)) ** rho


def weight_of(case: Case, sigma: Tensor) -> Tensor:
    schedule = case.option("weight_schedule")
    if schedule == "karras":
        return edm_weight(sigma, case.option("sigma_data"))
    if schedule == "truncated-snr":
        return truncated_snr(torch.ones_like(sigma), sigma)
    if schedule != "uniform":
        raise NotImplementedError(f"weight_schedule: {schedule}")
    return torch.ones_like(sigma)


def euler(x: Tensor, clean: Tensor, sigma: Tensor, later: Tensor) -> Tensor:
    return x + per_sample((later - sigma) / sigma, x) * (x - clean)


def heun(x: Tensor, denoise: Network, sigma: Tensor, later: Tensor) -> Tensor:
    slope = (x - denoise(x, sigma)) / per_sample(sigma, x)
    reached = x + per_sample(later - sigma, x) * slope
    second = (reached - denoise(reached, later)) / per_sample(later, x)
    return x + per_sample(later - sigma, x) * (slope + second) / 2


def noisy_start(case: Case, share: Tensor) -> tuple[Tensor, Tensor]:
    sigma = karras_sigmas(case, share)
    return case["x_start"] + per_sample(sigma, case["noise"]) * case["noise"], sigma


def consistency(case: Case) -> Answer:
    steps = case.option("num_scales") - 1
    noisy, sigma = noisy_start(case, case["indices"] / steps)
    later = karras_sigmas(case, (case["indices"] + 1) / steps)
    if case.method == "consistency_training":
        reached = euler(noisy, case["x_start"], sigma, later)
    else:
        reached = heun(noisy, karras_denoiser(case, "teacher", False), sigma, later)
    prediction = karras_denoiser(case, "student", True)(noisy, sigma)
    target = karras_denoiser(case, "target", True)(reached, later).detach()
    weight = weight_of(case, sigma)
    values = consistency_loss(prediction, target, weight, case.option("loss_norm"))
    return values.mean(), {"loss_per_sample": values}


def progressive(case: Case) -> Answer:
    if case.option("loss_norm") != "l2":
        raise NotImplementedError(f"loss_norm: {case.option('loss_norm')}")
    steps, teacher = case.option("num_scales"), karras_denoiser(case, "teacher", False)
    noisy, sigma = noisy_start(case, case["indices"] / steps)
    middle, later = (karras_sigmas(case, (case["indices"] + n) / steps) for n in (0.5, 1))
    reached = euler(noisy, teacher(noisy, sigma), sigma, middle)
    reached = euler(reached, teacher(reached, middle), middle, later)
    one = torch.ones_like(sigma)
    target = progressive_target(noisy, reached, one, sigma, one, later)
    prediction = karras_denoiser(case, "student", False)(noisy, sigma)
    values = weighted_squared_error(prediction, target, weight_of(case, sigma))
    return values.mean(), {"loss_per_sample": values}


def dmd(case: Case) -> Answer:
    case.ignore("num_train_timesteps")
    samples, sigma = case["latents"], case["karras_sigmas"][case["timesteps"]]
    noisy = samples.detach() + per_sample(sigma, samples) * case["noise"]
    fake = stand_in(case, "fake")(noisy, sigma)
    if "dm_gradient" not in case:
        values = weighted_squared_error(fake, samples.detach(), edm_weight(sigma))
        return values.mean(), {}
    real = stand_in(case, "real")(noisy, sigma)
    loss = distribution_matching_loss(samples, real, fake).mean()
    return loss, {"dm_gradient": distribution_matching_gradient(samples, real, fake)}


def clean_and_noise(
    case: Case, output: Tensor, noisy: Tensor, time: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the clean estimate and the noise of a network's output."""
    share = case["alphas_cumprod"][time]
    alpha, sigma = (per_sample(value.sqrt(), noisy) for value in (share, 1 - share))
    if case.option("prediction_type") == "epsilon":
        return (noisy - sigma * output) / alpha, output
    if case.option("prediction_type") != "v_prediction":
        raise NotImplementedError(f"prediction_type: {case.option('prediction_type')}")
    return alpha * noisy - sigma * output, alpha * output + sigma * noisy


def lcm(case: Case) -> Answer:
    skip = case.option("num_train_timesteps") // case.option("num_ddim_timesteps")
    start = (case["index"] + 1) * skip - 1
    later = (start - skip).clamp_min(0)
    lowest, highest = case.option("w_min"), case.option("w_max")
    scale = lowest + (highest - lowest) * case["guidance_uniform"]
    embedded = guidance_embedding(scale, case.option("time_cond_dim"))
    share = case["alphas_cumprod"][start]
    alpha, sigma = (per_sample(value.sqrt(), case["latents"]) for value in (share, 1 - share))
    noisy = alpha * case["latents"] + sigma * case["noise"]

    def consistent(role: str, x: Tensor, time: Tensor) -> Tensor:
        output = stand_in(case, role)(x, time.double(), case["prompt"], embedded)
        clean = clean_and_noise(case, output, x, time)[0]
        scaled, sigma_data = time * case.option("timestep_scaling"), case.option("sigma_data")
        c_skip = sigma_data**2 / (scaled.square() + sigma_data**2)
        c_out = scaled / (scaled.square() + sigma_data**2).sqrt()
        return per_sample(c_skip, x) * x + per_sample(c_out, x) * clean

    teacher = stand_in(case, "teacher")
    outputs = [
        clean_and_noise(case, teacher(noisy, start.double(), prompt), noisy, start)
        for prompt in (case["prompt"], torch.zeros_like(case["prompt"]))
    ]
    clean, noise = (guided_prediction(*pair, scale) for pair in zip(*outputs, strict=True))
    # The step before the first of the solver ends at time 0 of the table.
    share = case["alphas_cumprod"][later]
    alpha, sigma = (per_sample(value.sqrt(), noisy) for value in (share, 1 - share))
    target = consistent("target", alpha * clean + sigma * noise, later).detach()
    prediction = consistent("student", noisy, start)
    distance = "entry_huber" if case.option("loss_type") == "huber" else "l2"
    width = case.option("huber_c")
    loss = consistency_loss(prediction, target, None, distance, width).mean()
    return loss, {"target_prediction": target, "model_prediction": prediction}


ADAPTERS = {
    "consistency_distillation": consistency,
    "consistency_training": consistency,
    "progressive_distillation": progressive,
    "dmd": dmd,
    "lcm": lcm,
}
