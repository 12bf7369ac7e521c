"""Base class of schemes whose student matches clean images at chosen noise levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective, Objectives, Outputs, Teacher, Update
from instil.functional.diffusion.loss_weights import LossWeight, loss_weight
from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.diffusion.steps import ddim_step
from instil.functional.keyed_random import keyed_uniform
from instil.modules.denoiser import Denoiser
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.diffusion import DiffusionScheme


class DenoisedTargets(DiffusionScheme):
    """Base class of schemes that compute targets for the student's clean images.

    ``forward_both`` returns ``denoised`` of both sides and the teacher's ``loss_weight`` (N,), for
    the objective ``denoised_matching``. Outputs for data also have the roles of ``denoising``.

    Args:
        student: the student.
        teacher: the teacher; None for schemes without a teacher.
        objectives: losses, by name.
        noise_weight: weight of the error of the clean image over the noise level.
        guidance: weight of the teacher's classifier-free guidance.

    Raises:
        ValueError: if teacher and student are guided.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        noise_weight: LossWeight = "one",
        guidance: float = 0.0,
    ):
        super().__init__(student, teacher, objectives)
        check_guided_once(self.student_denoiser, guidance)
        self.noise_weight = noise_weight
        self.guidance = guidance

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule of the student."""
        return self.student_denoiser.schedule

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def weights(self, time: Tensor) -> Tensor:
        """Weights (N,) of the errors at times (N,)."""
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return loss_weight(self.noise_weight, alpha, sigma, self.student_denoiser.parameterisation)

    def interval(self, batch: Batch, num_steps: int, stream: str) -> tuple[Tensor, Tensor]:
        """Start and end (N,) of a random step of a sampler for each image.

        Args:
            batch: batch of the step.
            num_steps: number of steps of the sampler.
            stream: name of the random stream.
        """
        uniforms = keyed_uniform(batch, 1, stream)[:, 0]
        # Rounding may reach the number of steps itself.
        index = (uniforms * num_steps).long().clamp_max(num_steps - 1)
        grid = self.schedule.grid(num_steps).to(uniforms)
        return grid[index], grid[index + 1]

    def teacher_step(
        self,
        noisy: Tensor,
        time: Tensor,
        end_time: Tensor,
        label: Tensor | None,
        solver: str = "ddim",
        guidance: Tensor | float | None = None,
    ) -> Tensor:
        """Noisy images at the end of one step of the teacher.

        Args:
            noisy: noisy images (N, ...) of the student's schedule.
            time: times (N,) > 0.
            end_time: smaller times (N,).
            label: classes (N,), None for no class.
            solver: ``ddim`` or ``heun``.
            guidance: weight of the guidance, a number or (N,); None: that of the scheme.
        """
        weight = self.guidance if guidance is None else guidance
        denoised = self.teacher_denoised(noisy, time, label, weight)
        now = self.schedule.coefficients(time, noisy)
        reached = ddim_step(noisy, denoised, now, self.schedule.coefficients(end_time, noisy))
        if solver == "ddim":
            return reached
        length = over_pixels(end_time - time, noisy)
        velocity = self.schedule.velocity(noisy, denoised, time)
        euler = noisy + length * velocity
        # The velocity has no value at time 0, where a first-order step ends.
        safe_end = end_time.clamp_min(self.schedule.min_time)
        again = self.teacher_denoised(euler, safe_end, label, weight)
        corrected = self.schedule.velocity(euler, again, safe_end)
        heun = noisy + length * (velocity + corrected) / 2
        return torch.where(over_pixels(end_time, noisy) > 0, heun, reached)

    def run_on_data(self, sample: NoisySample, time: Tensor, **scalars: Tensor) -> Outputs:
        """Outputs of the student for noisy data, with the roles of the objective ``denoising``.

        Args:
            sample: images, noise and classes; its times and noisy images are not used.
            time: times (N,) of the student's schedule.
            **scalars: numbers (N,) that the network reads besides the time.
        """
        noisy = self.schedule.add_noise(sample.clean, sample.noise, time)
        alpha, sigma = self.schedule.coefficients(time, noisy)
        kind = self.student_denoiser.parameterisation
        return self.run_student(noisy, time, sample.label, None, **scalars) | {
            "target": kind.target(sample.clean, sample.noise, alpha, sigma),
            "clean": sample.clean,
            "alpha": alpha.flatten(),
            "sigma": sigma.flatten(),
        }

    def clean_at(
        self,
        net: Net | Teacher,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None,
        **scalars: Tensor,
    ) -> Tensor:
        """Clean images of a network, without gradient; at time 0 the images themselves."""
        with torch.no_grad():
            safe_time = time.clamp_min(self.schedule.min_time)
            outputs = self.run_student(noisy, safe_time, label, net, **scalars)
        return torch.where(over_pixels(time, noisy) > 0, outputs["denoised"], noisy)


def check_guided_once(student: Denoiser, guidance: float) -> None:
    """Check that a student of a guided teacher is not guided again by its sampler.

    Args:
        student: the student.
        guidance: weight of the guidance of its targets.

    Raises:
        ValueError: if it is.
    """
    if guidance and student.guidance:
        raise ValueError(
            "student.options.guidance: the student learns guided images, and its sampler would "
            f"guide them again. Expected 0, got {student.guidance:g}. Set guidance: 0 in the "
            "options of the student"
        )


def over_pixels(values: Tensor, images: Tensor) -> Tensor:
    """View values of images (N,) as (N, 1, ...), to broadcast with images (N, ...)."""
    return values.view(-1, *[1] * (images.ndim - 1))
