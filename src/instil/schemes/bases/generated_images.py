"""Base class of schemes whose student generates images in a few steps during training."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform
from instil.functional.noise import box_muller
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.denoised_targets import DenoisedTargets, over_pixels

LATENT_STREAM = "scheme.latent"
"""Random stream of the noise that images are generated from."""


class GeneratedImages(DenoisedTargets):
    """Base class of schemes whose losses read images that the student generates.

    The student starts from noise and takes the steps of the solver ``consistency``. A random step
    of each image has a gradient: the student learns all of its steps (Yin et al. 2024, "Improved
    distribution matching distillation", section 4.4). Only the shape of the images in a batch and
    their labels are used.
    """

    def start_step(self, batch: Batch, label: Tensor | None, turn: int) -> tuple[Tensor, Tensor]:
        """Noisy images and times (N,) at the start of a random step of the student's sampler.

        Args:
            batch: batch of the step.
            label: classes (N,), None for no class.
            turn: index of the update in this step, which has its own random numbers.
        """
        steps = self.student_denoiser.steps
        shape = tuple(batch["image"].shape[1:])
        noise = box_muller(batch, shape, f"{LATENT_STREAM}.{turn}").to(batch["image"].dtype)
        grid = self.schedule.grid(steps).to(noise)
        time = grid[0].expand(len(noise))
        noisy = self.schedule.coefficients(time, noise)[1] * noise
        if steps == 1:
            return noisy, time
        uniforms = keyed_uniform(batch, 1, f"scheme.step.{turn}")[:, 0]
        index = (uniforms * steps).long().clamp_max(steps - 1)
        for step in range(1, steps):
            with torch.no_grad():
                denoised = self.run_student(noisy, time, label)["denoised"]
            fresh = box_muller(batch, shape, f"{LATENT_STREAM}.{turn}.{step}").to(noise.dtype)
            next_time = grid[step].expand(len(noise))
            is_later = index >= step
            next_noisy = self.schedule.add_noise(denoised, fresh, next_time)
            noisy = torch.where(over_pixels(is_later, noisy), next_noisy, noisy)
            time = torch.where(is_later, next_time, time)
        return noisy, time

    def generate(self, batch: Batch, turn: int = 0) -> tuple[Tensor, Tensor | None]:
        """Images (N, ...) that the student generates, and their classes.

        Args:
            batch: batch of the step.
            turn: index of the update in this step.
        """
        label: Tensor | None = batch["label"] if self.student_denoiser.num_classes else None
        images: Tensor = self.run_student(*self.start_step(batch, label, turn), label)["denoised"]
        return images, label

    def add_noise(self, images: Tensor, batch: Batch, turn: int = 0) -> NoisySample:
        """Noisy versions of generated images at random times of the student.

        Args:
            images: clean images (N, ...) of a denoiser.
            batch: batch of the step.
            turn: index of the update in this step.
        """
        sample = self.draw(batch, f"scheme.matching.{turn}")
        noisy = self.schedule.add_noise(images, sample.noise, sample.time)
        return NoisySample(images, sample.noise, sample.time, noisy, sample.label)
