"""Continuous-time consistency models, whose target is a derivative along the path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.functional.diffusion.derivatives import value_and_derivative
from instil.functional.diffusion.steps import over_pixels
from instil.schemes.bases.consistency import make_consistency_model
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps

TANGENT_OFFSET = 0.1
"""Constant that is added to the norm of a tangent (Lu & Song 2025, section 4.1)."""


class SCM(DiffusionScheme):
    """Continuous-time consistency distillation or training (Lu & Song 2025, Algorithm 1).

    With a teacher the path is that of the teacher (sCD), without one that of the data (sCT). Any
    schedule is read as the angle ``atan(sigma / (alpha * sigma_data))``.
    """

    card = Card(
        "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models",
        "https://arxiv.org/abs/2410.11081",
        "ICLR",
        2025,
        source="self",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\lVert F - \mathrm{sg}[F + g / (\lVert g \rVert + 0.1)] \rVert^2, \quad "
        r"g = \cos\theta\, \frac{d \hat x^s}{d \theta}",
        use="Consistency distillation without a grid of times and its bias, for one or two steps.",
        pitfalls="It needs networks whose layers have forward-mode derivatives. Start from the "
        "teacher. Embeddings of the time with high frequencies make the derivative unstable. A "
        "step costs about two forward passes more than consistency_distillation.",
        deviations="No learned weight over the time: the distribution of times of the student "
        "decides. The warm-up is a share of the training.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        sigma_data: Annotated[
            float, Gt(0), Doc("standard deviation of the clean images in [-1, 1]")
        ] = 0.5,
        warm_up: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc("share of the training in which the derivative of the network gains its weight"),
        ] = 0.1,
        steps: StudentSteps = 1,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        make_consistency_model(self.student_denoiser)
        self.sigma_data = sigma_data
        self.warm_up = warm_up

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "differentiates the student in forward mode"

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs for noisy data, and these images moved along the tangent."""
        sample = self.draw(batch)
        end_of_path = sample.clean
        if self.teacher is not None:
            end_of_path = self.teacher_denoised(sample.noisy, sample.time, sample.label)
        student = self.run_on_data(sample, sample.time)
        tangent = self.tangent(sample.noisy, sample.time, sample.label, end_of_path, batch)
        # F differs from a multiple of the clean image by a constant.
        sine = self.sigma_data * over_pixels(self.angle(sample.time).sin(), sample.noisy)
        velocity = -student["denoised"] / sine
        student |= {"compared": velocity}
        return student, {"compared": velocity.detach() + tangent}

    def angle(self, time: Tensor) -> Tensor:
        """Angle (N,) of the noise level, from 0 for a clean image to pi / 2 for noise."""
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return torch.atan2(sigma, alpha * self.sigma_data)

    def angle_rate(self, time: Tensor) -> Tensor:
        """Derivative (N,) of the angle by the time."""
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        alpha_rate, sigma_rate = self.schedule.rates(time)
        norm = sigma.square() + (alpha * self.sigma_data).square()
        return self.sigma_data * (sigma_rate * alpha - sigma * alpha_rate) / norm

    def tangent(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None,
        end_of_path: Tensor,
        batch: Batch,
    ) -> Tensor:
        """Normalised tangent ``g`` (N, ...) of the network, without gradient.

        Args:
            noisy: noisy images (N, ...).
            time: their times (N,).
            label: classes (N,), None for no class.
            end_of_path: clean images to which the path leads, of the teacher or of the data.
            batch: batch of the step.
        """
        velocity = self.schedule.velocity(noisy, end_of_path, time)

        def predict(noisy: Tensor, time: Tensor) -> Tensor:
            denoised: Tensor = self.run_student(noisy, time, label)["denoised"]
            return denoised

        direction = velocity, torch.ones_like(time)
        denoised, derivative = value_and_derivative(predict, (noisy, time), direction)
        derivative = derivative / over_pixels(self.angle_rate(time), noisy)
        cosine = over_pixels(self.angle(time).cos(), noisy)
        sine = over_pixels(self.angle(time).sin(), noisy)
        # The error of the student as a denoiser; the rest is its change along the path.
        denoising = cosine * (denoised - end_of_path) / sine
        change = derivative - denoising
        progress = float(batch.get("progress", 0.0))
        share = min(1.0, progress / self.warm_up) if self.warm_up else 1.0
        tangent = cosine * (denoising + share * change)
        norm = tangent.flatten(1).norm(dim=1)
        return tangent / over_pixels(norm + TANGENT_OFFSET, noisy)
