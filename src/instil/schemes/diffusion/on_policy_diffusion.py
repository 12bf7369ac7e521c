"""On-policy distillation: the teacher corrects the student along the student's own path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.functional.diffusion.steps import noise_of, over_pixels
from instil.functional.keyed_random import keyed_index
from instil.functional.noise import box_muller
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps


class OnPolicyDiffusion(DiffusionScheme):
    """Student that matches the teacher's steps on its own random paths.

    The student samples from noise by the random steps of Ho et al. 2020. At a random step of each
    image the loss is the KL divergence between the Gaussian steps of student and teacher.
    """

    card = Card(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        "https://arxiv.org/abs/2306.13649",
        "ICLR",
        2024,
        source="offline",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\frac{\lVert \mu^s(z_t) - \mu^t(z_t) \rVert^2}{2 \sigma_t^2}, \quad "
        r"z_t \sim \text{path of the student}",
        use="For a smaller student with the steps of its teacher: it corrects the errors that the "
        "student itself makes on its path, which noisy data do not show.",
        pitfalls="A step of the training costs half a sampling of the student. Images of an "
        "untrained student teach little: start from a student of offline distillation. It does not "
        "reduce the number of steps by itself.",
        deviations="The paper is on language models. A step of a sampler takes the place of a "
        "token, with the KL divergence of two Gaussians of equal variance. Gradients do not pass "
        "through the path.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        steps: StudentSteps = None,
        largest_weight: Annotated[
            float, Gt(0), Doc("largest weight of an error, for the steps of little noise")
        ] = 10.0,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self.largest_weight = largest_weight

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Clean images of student and teacher at a random step of the student's path."""
        label: Tensor | None = batch["label"] if self.student_denoiser.num_classes else None
        index = keyed_index(batch, self.steps, "scheme.step")
        # The path is that of the sampler, which has no dropout.
        with eval_mode(self.student):
            noisy, time, end_time = self.rollout(batch, index, label)
        student = self.run_student(noisy, time, label)
        denoised = self.teacher_denoised(noisy, time, label)
        weight = self.step_weight(time, end_time).clamp_max(self.largest_weight)
        return student, {"denoised": denoised, "loss_weight": weight}

    @torch.no_grad()
    def rollout(
        self, batch: Batch, index: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy images, start and end (N,) of step ``index`` (N,) of the student's path."""
        shape = tuple(batch["image"].shape[1:])
        noise = box_muller(batch, shape, "scheme.path.0").to(batch["image"].dtype)
        grid = self.schedule.grid(self.steps).to(noise)
        noisy = self.schedule.coefficients(grid[0], noise)[1] * noise
        for step in range(self.steps - 1):
            time = grid[step].expand(len(noise))
            denoised = self.run_student(noisy, time, label)["denoised"]
            fresh = box_muller(batch, shape, f"scheme.path.{step + 1}").to(noise.dtype)
            after = self.random_step(noisy, denoised, fresh, grid[step], grid[step + 1])
            noisy = torch.where(over_pixels(index > step, noise), after, noisy)
        return noisy, grid[index], grid[index + 1]

    def random_step(
        self, noisy: Tensor, denoised: Tensor, fresh: Tensor, time: Tensor, end_time: Tensor
    ) -> Tensor:
        """Images after a step of the ancestral sampler with fresh noise."""
        noise = noise_of(noisy, denoised, self.schedule.coefficients(time, noisy))
        end_alpha, _ = self.schedule.coefficients(end_time, noisy)
        factor, variance = (over_pixels(value, noisy) for value in self.noise_parts(time, end_time))
        return end_alpha * denoised + factor.to(noisy) * noise + variance.sqrt().to(noisy) * fresh

    def noise_parts(self, time: Tensor, end_time: Tensor) -> tuple[Tensor, Tensor]:
        """Factor of the predicted noise, and variance of the fresh noise, after a step."""
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        end_alpha, end_sigma = self.schedule.alpha(end_time), self.schedule.sigma(end_time)
        added = sigma.square() - (alpha / end_alpha * end_sigma).square()
        variance = (end_sigma / sigma).square() * added
        return (end_sigma.square() - variance).clamp_min(0).sqrt(), variance

    def step_weight(self, time: Tensor, end_time: Tensor) -> Tensor:
        """Weight (N,) of the squared error of the clean image in the divergence of a step."""
        ratio = self.schedule.alpha(time) / self.schedule.sigma(time)
        factor, variance = self.noise_parts(time, end_time)
        slope = self.schedule.alpha(end_time) - factor * ratio
        return slope.square() / (2 * variance.clamp_min(torch.finfo(variance.dtype).tiny))
