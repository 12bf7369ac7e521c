"""Images that a student generates during training."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instil.core import Batch
from instil.functional.diffusion.steps import over_pixels
from instil.functional.keyed_random import keyed_index
from instil.functional.noise import box_muller
from instil.modules.noisy_sample import NoisySample, to_model_range
from instil.schemes.bases.diffusion import DiffusionScheme

LATENT_STREAM = "scheme.latent"
"""Random stream of the noise that images are generated from."""


def generate(scheme: DiffusionScheme, batch: Batch, turn: int = 0) -> NoisySample:
    """Images of the student, and noisy versions of them at random times of the student.

    The student starts from noise and takes the steps of the solver ``consistency``. A random step
    of each image has a gradient: the student learns all of its steps (Yin et al. 2024, "Improved
    distribution matching distillation", section 4.4). Only the shape of the images in a batch and
    their labels are used.

    Args:
        scheme: the scheme.
        batch: batch of the step.
        turn: index of the update in this step, which has its own random numbers.

    Returns:
        Sample whose ``clean`` are the images of the student. ``label`` has no dropped classes.
    """
    label: Tensor | None = batch["label"] if scheme.student_denoiser.num_classes else None
    images: Tensor = scheme.run_student(*start_step(scheme, batch, label, turn), label)["denoised"]
    return with_random_noise(scheme, images, label, batch, turn)


def with_random_noise(
    scheme: DiffusionScheme, images: Tensor, label: Tensor | None, batch: Batch, turn: int = 0
) -> NoisySample:
    """Images of the student, and noisy versions of them at random times of the student.

    Args:
        scheme: the scheme.
        images: clean images (N, ...) of the student.
        label: classes (N,), None for no class.
        batch: batch of the step.
        turn: index of the update in this step.
    """
    drawn = scheme.draw(batch, f"scheme.matching.{turn}")
    noisy = scheme.schedule.add_noise(images, drawn.noise, drawn.time)
    return NoisySample(images, drawn.noise, drawn.time, noisy, label)


def data_with_noise_of(scheme: DiffusionScheme, sample: NoisySample, batch: Batch) -> NoisySample:
    """Data of the batch with the noise, the times and the classes of generated images.

    Args:
        scheme: the scheme.
        sample: generated images.
        batch: batch of the step.
    """
    clean = to_model_range(batch["image"])
    noisy = scheme.schedule.add_noise(clean, sample.noise, sample.time)
    return replace(sample, clean=clean, noisy=noisy)


def start_step(
    scheme: DiffusionScheme, batch: Batch, label: Tensor | None, turn: int
) -> tuple[Tensor, Tensor]:
    """Noisy images and times (N,) at the start of a random step of the student's sampler.

    Args:
        scheme: the scheme.
        batch: batch of the step.
        label: classes (N,), None for no class.
        turn: index of the update in this step.
    """
    steps = scheme.student_denoiser.steps
    shape = tuple(batch["image"].shape[1:])
    noise = box_muller(batch, shape, f"{LATENT_STREAM}.{turn}").to(batch["image"].dtype)
    grid = scheme.schedule.grid(steps).to(noise)
    time = grid[0].expand(len(noise))
    noisy = scheme.schedule.coefficients(time, noise)[1] * noise
    if steps == 1:
        return noisy, time
    index = keyed_index(batch, steps, f"scheme.step.{turn}")
    for step in range(1, steps):
        with torch.no_grad():
            denoised = scheme.run_student(noisy, time, label)["denoised"]
        fresh = box_muller(batch, shape, f"{LATENT_STREAM}.{turn}.{step}").to(noise.dtype)
        next_time = grid[step].expand(len(noise))
        is_later = index >= step
        next_noisy = scheme.schedule.add_noise(denoised, fresh, next_time)
        noisy = torch.where(over_pixels(is_later, noisy), next_noisy, noisy)
        time = torch.where(is_later, next_time, time)
    return noisy, time
