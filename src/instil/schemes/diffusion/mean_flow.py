"""MeanFlow: the mean velocity of the flow between two times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Outputs, Teacher
from instil.functional.diffusion.derivatives import value_and_derivative
from instil.functional.diffusion.steps import over_pixels
from instil.functional.keyed_random import keyed_uniform
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps

SMALLEST = 1e-3
"""Constant that is added to the squared error in the adaptive weight."""


class MeanFlow(DiffusionScheme):
    """Student that predicts the mean velocity between two times (Geng et al. 2025, Eq. 10).

    The network reads the number ``end_time``, at which a step ends. With a teacher the velocity of
    the target is that of the teacher, without one that of the data.

    Raises:
        ValueError: for a student without ``end_time``, or without the schedule and the
            parameterisation ``flow``.
    """

    card = Card(
        "Mean Flows for One-step Generative Modeling",
        "https://arxiv.org/abs/2505.13447",
        "NeurIPS",
        2025,
        source="self",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\lVert u(z_t, r, t) - \mathrm{sg}[v - (t - r)(v\, \partial_z u + "
        r"\partial_t u)] \rVert^2",
        use="For a sampler of any number of steps from one network without stages, an average or a "
        "critic. It can start from a flow model.",
        pitfalls="It needs networks whose layers have forward-mode derivatives. The derivative in "
        "time is unstable for embeddings of high frequency. The share of different times of the "
        "paper, 0.25, suits long trainings from random weights. A short training from a flow model "
        "learns one step with 0.75.",
        deviations="Guidance inside the target is that of the teacher; the paper mixes predictions "
        "of the student.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        different: Annotated[
            float, Ge(0), Le(1), Doc("share of samples whose two times differ; the others have one")
        ] = 0.25,
        power: Annotated[
            NonNegative,
            Doc("exponent p of the adaptive weight (squared error + 0.001) ** -p; 0: no weight"),
        ] = 1.0,
        steps: StudentSteps = 1,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self._check()
        self.different = different
        self.power = power

    def _check(self) -> None:
        student = self.student_denoiser
        names = student.schedule.name, student.parameterisation.name
        if names != ("flow", "flow"):
            raise ValueError(
                "student.options: mean_flow predicts a velocity. Expected schedule: flow and "
                f"parameterisation: flow, got {names[0]} and {names[1]}"
            )
        if "end_time" not in student.scalars:
            raise ValueError(
                "student.options.network_options: mean_flow needs a network that reads the end "
                "of a step. Set scalars: [end_time]"
            )

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "differentiates the student in forward mode"

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs for two times, and the target of the mean velocity."""
        sample = self.draw(batch)
        time, end_time = self.draw_times(batch, sample)
        noisy = self.schedule.add_noise(sample.clean, sample.noise, time)
        velocity = self.velocity(sample, noisy, time)
        outputs = self.run_student(noisy, time, sample.label, end_time=end_time)
        target = self.target_velocity(noisy, time, end_time, velocity, sample.label)
        error = (outputs["prediction"].detach() - target).square().flatten(1).sum(1)
        # The loss is a mean over the entries, and that of the paper a sum.
        weight = target.shape[1:].numel() / (error + SMALLEST) ** self.power
        student = outputs | {"compared": outputs["prediction"]}
        return student, {"compared": target, "loss_weight": weight}

    def draw_times(self, batch: Batch, sample: NoisySample) -> tuple[Tensor, Tensor]:
        """Start and end (N,) of a step; equal for a share of the samples."""
        second = self.draw(batch, "scheme.end_time").time
        time, end_time = torch.maximum(sample.time, second), torch.minimum(sample.time, second)
        is_different = keyed_uniform(batch, 1, "scheme.different")[:, 0] < self.different
        return time, torch.where(is_different, end_time, time)

    def velocity(self, sample: NoisySample, noisy: Tensor, time: Tensor) -> Tensor:
        """Velocity (N, ...) at the start, of the teacher or of the data."""
        if self.teacher is None:
            return sample.noise - sample.clean
        denoised = self.teacher_denoised(noisy, time, sample.label)
        return self.schedule.velocity(noisy, denoised, time)

    def target_velocity(
        self,
        noisy: Tensor,
        time: Tensor,
        end_time: Tensor,
        velocity: Tensor,
        label: Tensor | None,
    ) -> Tensor:
        """Mean velocity (N, ...) by the identity of MeanFlow, without gradient."""

        def predict(noisy: Tensor, time: Tensor) -> Tensor:
            outputs = self.run_student(noisy, time, label, end_time=end_time)
            prediction: Tensor = outputs["prediction"]
            return prediction

        direction = velocity, torch.ones_like(time)
        derivative = value_and_derivative(predict, (noisy, time), direction)[1]
        return velocity - over_pixels(time - end_time, noisy) * derivative
